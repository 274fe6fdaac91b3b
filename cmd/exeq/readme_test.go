//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeTranscript runs the commands of the README's first screen as they
// stand there, in a shell, and each must succeed.
func TestReadmeTranscript(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```console\n")
	block, _, _ := strings.Cut(rest, "```")
	var commands []string
	for line := range strings.Lines(block) {
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			commands = append(commands, strings.TrimSpace(c))
		}
	}
	if !ok || len(commands) != 4 || !strings.Contains(commands[3], "exeq verify") {
		t.Fatalf("want a transcript of four commands that ends in exeq verify, found %q", commands)
	}
	dir := t.TempDir()
	env := append(os.Environ(), "EXEQ_STATE="+filepath.Join(dir, "state"))
	for _, c := range commands {
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(c, "/tmp/", dir+"/"))
		cmd.Dir, cmd.Env = "../..", env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
}
