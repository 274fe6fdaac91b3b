//go:build linux

package attacks

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// inMachine names, in a machine of package vm, the directory of what was built
// outside.
const inMachine = "EXEQ_TEST_PROGRAMS"

// world is what all rows of one test run share: a directory outside every
// temporary directory that policy opens, with the programs built once.
var world struct {
	dir string // root's; every user may look
	// programs are the paths of what was built, by name.
	programs map[string]string
	// node is what theNode started.
	node *daemon
	// hashes of what the policy noTool forbids.
	tool, lib, code, loader, script string
}

func TestMain(m *testing.M) {
	flag.Parse()
	// Rows wait more than they compute: for a sleep, a tick, a drainer's end.
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
	}
	dir, err := os.MkdirTemp("/var/tmp", "exeq-attacks-")
	if bin := os.Getenv(inMachine); bin != "" {
		dir, err = filepath.Dir(bin), nil
	}
	if err == nil {
		world.dir = dir
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = build()
	}
	code := 1
	if err != nil {
		log.Print(err)
	} else {
		code = m.Run()
		if world.node != nil {
			world.node.stop()
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// build compiles the attacks, the helpers and exeq itself.
func build() error {
	bin := filepath.Join(world.dir, "bin")
	world.programs = map[string]string{}
	if os.Getenv(inMachine) != "" {
		files, err := os.ReadDir(bin)
		for _, f := range files {
			world.programs[f.Name()] = filepath.Join(bin, f.Name())
		}
		return errors.Join(err, hashes())
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	sources, err := filepath.Glob("testdata/*.c")
	if err != nil {
		return err
	}
	for _, src := range sources {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		args := []string{"-Wall", "-Wextra", "-Werror", "-O1", "-pthread"}
		if name == "loader" {
			args = []string{"-Wall", "-Wextra", "-Werror", "-O1", "-static-pie", "-nostdlib", "-fPIE", "-fno-stack-protector"}
		}
		if name == "evil" {
			name = "evil.so"
			args = append(args, "-shared", "-fPIC")
		}
		out := filepath.Join(bin, name)
		if err := command("gcc", append(args, "-o", out, src, "-lrt")...); err != nil {
			return err
		}
		world.programs[name] = out
	}
	world.programs["dial"] = filepath.Join(bin, "dial")
	if err := command("env", "CGO_ENABLED=0", "go", "build", "-o", world.programs["dial"], "testdata/dial/main.go"); err != nil {
		return err
	}
	world.programs["code"] = filepath.Join(bin, "code")
	if err := os.WriteFile(world.programs["code"], machineCode(), 0o755); err != nil {
		return err
	}
	world.programs["script"] = filepath.Join(bin, "script")
	if err := os.WriteFile(world.programs["script"], []byte("#!/bin/sh\necho FORBIDDEN-SCRIPT-RAN\n"), 0o755); err != nil {
		return err
	}
	return hashes()
}

// hashes notes what the policy noTool forbids.
func hashes() error {
	for name, hash := range map[string]*string{"tool": &world.tool, "evil.so": &world.lib, "code": &world.code, "loader": &world.loader, "script": &world.script} {
		b, err := os.ReadFile(world.programs[name])
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		*hash = hex.EncodeToString(sum[:])
	}
	return nil
}

// exeq is the path of the command under test, built on first use.
var exeqPath = sync.OnceValues(func() (string, error) { return built("exeq") })

// built is a command of this module, with the programs; it may have come there
// from outside.
func built(name string) (string, error) {
	path := filepath.Join(world.dir, "bin", name)
	if os.Getenv(inMachine) != "" {
		return path, nil
	}
	c := exec.Command("go", "build", "-o", path, "../../cmd/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return path, fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

func exeqBinary(t *testing.T) string {
	t.Helper()
	path, err := exeqPath()
	must(t, err)
	return path
}

func command(name string, args ...string) error {
	if out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// machineCode is a page that begins with a function returning 0x4c1d.
func machineCode() []byte {
	code := make([]byte, 4096)
	switch runtime.GOARCH {
	case "amd64":
		copy(code, []byte{0xb8, 0x1d, 0x4c, 0, 0, 0xc3}) // mov eax, 0x4c1d; ret
	case "arm64":
		binary.LittleEndian.PutUint32(code, 0x528983a0)     // mov w0, #0x4c1d
		binary.LittleEndian.PutUint32(code[4:], 0xd65f03c0) // ret
	}
	return code
}

// random is a word that stands nowhere else.
func random(prefix string) string {
	var b [9]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// install copies a built program to a path with a mode and an owner.
func install(t *testing.T, name, to string, mode os.FileMode, uid int) {
	t.Helper()
	b, err := os.ReadFile(world.programs[name])
	must(t, err)
	syscall.ForkLock.RLock() // a child of another row must not inherit a file open for writing
	err = os.WriteFile(to, b, 0o755)
	syscall.ForkLock.RUnlock()
	must(t, err)
	must(t, os.Chown(to, uid, uid))
	must(t, os.Chmod(to, mode)) // after chown, which clears set-user-ID
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// users are those whom this process can run rows as.
func users() map[string]int {
	if os.Getuid() == 0 {
		return map[string]int{"root": 0, "user": 65534}
	}
	return map[string]int{"user": os.Getuid()}
}

// clean reports output without the noise of a terminal.
func clean(b []byte) string {
	s := string(bytes.ReplaceAll(b, []byte{0}, []byte{'\n'}))
	if len(s) > 3000 {
		s = s[:1500] + "\n…\n" + s[len(s)-1500:]
	}
	return s
}
