//go:build linux

package faults

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exeq/exeq"
)

const deniedForever = "denied-forever"

// denied, as a program inside, has so many forbidden programs refused as fast as
// it can.
func denied(dir, count string) {
	n, err := strconv.Atoi(count)
	for i := 0; i < n && err == nil; i++ {
		name := filepath.Join(dir, strconv.Itoa(i%2000))
		if e := syscall.Exec(name, []string{name}, nil); e != syscall.EACCES && e != syscall.EPERM {
			err = fmt.Errorf("%s: %w", name, e)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestDenialLoop: who is denied in a loop, under ever new names, where policy has
// no quota, fills neither the state nor where messages go; and all are counted. A
// minute of it is EXEQ_ROUNDS=90.
func TestDenialLoop(t *testing.T) {
	h := newHouse(t)
	count := rounds(exeq.MaxDenialLeaves + 500)
	settings := filepath.Join(h.state, "policy", "settings.json")
	text, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	unbounded := strings.Replace(string(text), `"denials": 10000, `, "", 1)
	if unbounded == string(text) {
		t.Fatalf("the starter's quota is not what it was: %s", text)
	}
	forbidden := filepath.Join(filepath.Dir(h.state), "forbidden")
	program, err := os.ReadFile(os.Args[0])
	for _, e := range []error{err, os.WriteFile(settings, []byte(unbounded), 0o644), os.Mkdir(forbidden, 0o755),
		os.WriteFile(filepath.Join(h.work, "loop"), program, 0o755), os.WriteFile(filepath.Join(forbidden, "0"), []byte("#!/bin/sh\n"), 0o755)} {
		if e != nil {
			t.Fatal(e)
		}
	}
	for i := 1; i < 2000; i++ {
		if err := os.Link(filepath.Join(forbidden, "0"), filepath.Join(forbidden, strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	before, began := h.size(), time.Now()
	out, err := h.exeq("run", "--", "./loop", deniedForever, forbidden, strconv.Itoa(count)).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	if lines := strings.Count(string(out), "\n"); lines > 1100 {
		t.Errorf("%d lines are said", lines)
	}
	meanwhile := h.size() - before // SQLite's log in it
	h.left()
	grown, leaves := h.size()-before, len(h.log())
	t.Logf("%d denials in %s: %d leaves, %d KiB of state, %d KiB when it was drained, %d KiB said",
		count, took.Round(time.Millisecond), leaves, meanwhile>>10, grown>>10, len(out)>>10)
	if most := exeq.MaxDenialLeaves + 20 + int(took/time.Second); leaves > most {
		t.Errorf("%d leaves, more than %d", leaves, most)
	}
	if grown > exeq.MaxDenialLeaves*8<<10 {
		t.Errorf("the state grew by %d bytes", grown)
	}
	told := 0
	parts := strings.Split(string(h.must("proof", h.executions()[0].Execution)), " more denials")
	for _, p := range parts[:len(parts)-1] {
		n, err := strconv.Atoi(p[strings.LastIndexByte(p, '"')+1:])
		if err != nil {
			t.Fatal(err)
		}
		told += n
	}
	if want := count - exeq.MaxDenialLeaves; told != want {
		t.Errorf("%d denials without a leaf of their own are told, not %d", told, want)
	}
}

// left waits until nobody has the record open.
func (h *house) left() {
	h.t.Helper()
	f, err := os.Open(filepath.Join(h.state, "store.lock"))
	if err == nil {
		defer f.Close()
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// size is what the state takes.
func (h *house) size() (n int64) {
	filepath.WalkDir(h.state, func(_ string, d fs.DirEntry, err error) error {
		if info, ierr := d.Info(); err == nil && ierr == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
