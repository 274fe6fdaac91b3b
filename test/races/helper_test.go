//go:build linux

// Package races executes programs while others put forbidden ones in their
// place, in every tier, inside and from outside, and counts who reached their
// first system call.
package races

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/test/house"
)

// world is what all tests share: a directory that no policy opens, with what was
// built once.
var world string

func TestMain(m *testing.M) {
	dir, err := house.Build()
	if err == nil {
		world = dir
		err = build(dir)
	}
	code := 1
	if err != nil {
		log.Print(err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// build compiles the adversary and what it executes.
func build(dir string) error {
	gcc := func(out string, args ...string) []string {
		return append([]string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, out)}, args...)
	}
	bare := []string{"-nostdlib", "-ffreestanding", "-fno-stack-protector", "-Wl,--build-id=none", "testdata/mark.c"}
	lines := [][]string{gcc("racer", "-static", "-pthread", "testdata/racer.c", "testdata/swap.c", "testdata/storm.c")}
	for name, mark := range map[string]string{"good": "G", "bad": "B"} {
		mark = "-DMARK='" + mark + "'"
		lines = append(lines,
			gcc(name, append([]string{mark, "-static", "-Wl,-z,noseparate-code"}, bare...)...),
			gcc(name+".so", append([]string{mark, "-DLIBRARY", "-shared", "-fPIC", "-Wl,-soname,libmark.so"}, bare...)...))
	}
	lines = append(lines, gcc("host", "testdata/host.c", "-Wl,--no-as-needed,-rpath,$ORIGIN", filepath.Join(dir, "good.so")))
	for _, l := range lines {
		if err := house.Command(l...); err != nil {
			return err
		}
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// arena is a workspace with the adversary and what it executes in it.
func arena(h *house.House, name string) string {
	h.T.Helper()
	ws := h.Mkdir(name)
	for _, f := range []string{"racer", "good", "bad", "good.so", "bad.so", "host"} {
		b, err := os.ReadFile(filepath.Join(world, f))
		must(h.T, err)
		to := filepath.Join(ws, f)
		syscall.ForkLock.RLock() // no child inherits a program that is open for writing
		err = os.WriteFile(to, b, 0o755)
		syscall.ForkLock.RUnlock()
		must(h.T, err)
		must(h.T, os.Chown(to, h.UID, h.UID))
	}
	return ws
}

// only writes a policy: the starter's, but that in the workspace these files
// alone may be executed or mapped, by their bytes.
func only(h *house.House, ws string, allowed ...string) string {
	h.T.Helper()
	dir := filepath.Join(h.Dir, filepath.Base(ws)+".policy")
	must(h.T, os.Mkdir(dir, 0o755))
	files := policy.Starter().Files
	var settings map[string]any
	must(h.T, json.Unmarshal([]byte(files[policy.SettingsFile]), &settings))
	delete(settings, "quotas") // thousands of denials are what is asked for
	b, err := json.Marshal(settings)
	must(h.T, err)
	files[policy.SettingsFile] = string(b)
	var digests []string
	for _, f := range allowed {
		b, err := os.ReadFile(filepath.Join(ws, f))
		if os.IsNotExist(err) {
			continue
		}
		must(h.T, err)
		sum := sha256.Sum256(b)
		digests = append(digests, strconv.Quote(hex.EncodeToString(sum[:])))
	}
	files["only.cedar"] = `
@id("only-these")
forbid (principal, action in [Exeq::Action::"run", Exeq::Action::"exec"], resource in Exeq::Workspace::".")
unless { [` + strings.Join(digests, ", ") + `].contains(resource.sha256) };
`
	for name, text := range files {
		must(h.T, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}
