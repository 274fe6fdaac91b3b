//go:build linux

package record

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/exeq/exeq/internal/keyring"
)

// leaver is a child that records and leaves the store; in mode "leave" to what
// it becomes, which drains it.
func leaver(mode, dir string, say func(string, ...any)) error {
	keys, err := keyring.Open(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if mode == "heir" {
		s, err := Open(ctx, Config{Dir: dir, Keys: keys, Inherited: os.NewFile(3, "store.lock")})
		if err != nil {
			return err
		}
		say("epoch %s", s.Epoch())
		if l, _ := bufio.NewReader(os.Stdin).ReadString('\n'); l == "die\n" {
			self, _ := os.FindProcess(os.Getpid())
			return errors.Join(self.Kill(), errors.New("outlived its own kill"))
		}
		if err := s.Drain(ctx); err != nil {
			return err
		}
		return s.Close()
	}
	s, err := Open(ctx, Config{Dir: dir, Keys: keys})
	if err != nil {
		return err
	}
	es, err := newChain(keys, whole...)
	if err != nil {
		return err
	}
	for _, e := range es {
		if _, err := s.Record(ctx, e); err != nil {
			return err
		}
		say("ack %s", e.Leaf.ID)
	}
	say("epoch %s", s.Epoch())
	lock, err := s.Leave()
	if err != nil || mode == "abandon" {
		return err
	}
	if _, err := s.Record(ctx, es...); err == nil {
		say("error: recorded after the store was left")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	heir := exec.Command(self)
	heir.Env = append(os.Environ(), "EXEQ_RECORD_CHILD=heir")
	heir.Stdin, heir.Stdout, heir.ExtraFiles = os.Stdin, os.Stdout, []*os.File{lock}
	return heir.Start()
}

// closedWell reports whether the last user of a store said that it closed it.
func closedWell(dir string, keys *keyring.Ring) bool {
	s := &Store{c: Config{Dir: dir, Keys: keys}, log: newLogReader(filepath.Join(dir, "log"), keys)}
	return s.clean()
}

// TestLeave: a store that is left to a successor was in use all the time, and
// the successor closes it; one that is left to nobody was not closed, and the
// next user checks it.
func TestLeave(t *testing.T) {
	for _, mode := range []string{"leave", "abandon", "killed"} {
		dir, keys := newState(t)
		child := mode
		if mode == "killed" {
			child = "leave"
		}
		p := start(t, child, dir)
		var a acked
		var epochs []string
		for {
			l, ok := p.next()
			if !ok {
				break
			}
			a.take(l)
			if e, is := strings.CutPrefix(l, "epoch "); is {
				epochs = append(epochs, e)
			}
			if len(epochs) == 2 { // the successor has it
				word := "go\n"
				if mode == "killed" {
					word = "die\n"
				}
				p.stdin.WriteString(word)
			}
		}
		p.rest()
		if len(a.leaves) != len(whole) || len(a.errors) > 0 {
			t.Fatalf("%s: %d leaves, errors %v", mode, len(a.leaves), a.errors)
		}
		if got := closedWell(dir, keys); got != (mode == "leave") {
			t.Errorf("%s: closed well is %v", mode, got)
		}
		if mode != "abandon" && (len(epochs) != 2 || epochs[0] != epochs[1]) {
			t.Errorf("%s: epochs %v: nobody had it open for a moment", mode, epochs)
		}
		s := openStore(t, dir, keys)
		if len(epochs) > 0 && s.Epoch() == epochs[0] {
			t.Errorf("%s: the epoch outlived every user", mode)
		}
		a.kept(t, s)
		if n, _, err := s.Lag(within(t)); err != nil || (n == 0) != (mode == "leave") {
			t.Errorf("%s: %s leaves wait for the log, %v", mode, strconv.Itoa(n), err)
		}
		sound(t, s)
	}
}
