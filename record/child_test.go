//go:build linux

package record

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// child is what the test binary does in the crash and fault tests: it records
// executions and says "ack ID" or "burnt ID" for what it was promised.
func child(mode, dir string) int {
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...)
		out.Flush()
	}
	fail := func(err error) int {
		say("error %v", strings.ReplaceAll(err.Error(), "\n", " "))
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if mode == "full" {
		if err := childFull(dir); err != nil {
			return fail(err)
		}
		return 0
	}
	switch mode {
	case "leave", "abandon", "heir":
		if err := leaver(mode, dir, say); err != nil {
			return fail(err)
		}
		return 0
	}
	keys, err := keyring.Open(dir)
	if err != nil {
		return fail(err)
	}
	s, err := Open(ctx, Config{Dir: dir, Keys: keys, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return fail(err)
	}
	defer s.Close()
	switch mode {
	case "burn": // all the given ids, as fast as it goes
		say("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
		won := 0
		for i := range 2000 {
			err := s.Burn(ctx, fmt.Sprintf("permit-%04d", i), "n", exeq.At(time.Now()))
			if err == nil {
				won++
			}
		}
		say("won %d", won)
		return 0
	case "once": // one whole execution, drained
		es, err := newChain(keys, whole...)
		if err != nil {
			return fail(err)
		}
		for _, e := range es {
			if _, err := s.Record(ctx, e); err != nil {
				return fail(err)
			}
			say("ack %s", e.Leaf.ID)
		}
		if err := s.Burn(ctx, es[0].Leaf.Execution, "n", exeq.At(time.Now())); err != nil {
			return fail(err)
		}
		say("burnt %s", es[0].Leaf.Execution)
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			return fail(err)
		}
		say("drained")
		return 0
	case "loop", "busy": // until killed, draining beside it
		if mode == "busy" { // as a store is that commits much
			s.writer.moving = moving{busy: 1, every: 256 << 10, restart: 1 << 20}
		}
		if _, err := s.Recover(ctx); err != nil {
			return fail(err)
		}
		go func() {
			for ctx.Err() == nil {
				_ = s.Drain(ctx)
			}
		}()
		for {
			es, err := newChain(keys, whole...)
			if err != nil {
				return fail(err)
			}
			for i, e := range es {
				if _, err := s.Record(ctx, e); i == 0 && err != nil && strings.Contains(err.Error(), "no new permits") {
					// A machine too busy to drain in time: refused as it should be.
					if err := s.Drain(ctx); err != nil {
						return fail(err)
					}
					break
				} else if err != nil {
					return fail(err)
				}
				say("ack %s", e.Leaf.ID)
				if i == 0 {
					if err := s.Burn(ctx, e.Leaf.Execution, "n", exeq.At(time.Now())); err != nil {
						return fail(err)
					}
					say("burnt %s", e.Leaf.Execution)
				}
			}
		}
	}
	return fail(fmt.Errorf("unknown mode %q", mode))
}

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// process is a running child.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines *bufio.Scanner
	stdin *os.File
}

func start(t testing.TB, mode, dir string, wrap ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(wrap, self)
	p := &process{t: t, cmd: exec.Command(argv[0], argv[1:]...)}
	p.cmd.Env = append(os.Environ(), "EXEQ_RECORD_CHILD="+mode, "EXEQ_RECORD_DIR="+dir)
	if testing.Verbose() {
		p.cmd.Stderr = os.Stderr
	}
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin, p.stdin = in, stdin
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	return p
}

// next gives the next line, false at the end of the child.
func (p *process) next() (string, bool) { ok := p.lines.Scan(); return p.lines.Text(), ok }

// kill ends the child and gives the lines that it had still written.
func (p *process) kill() []string {
	p.cmd.Process.Kill()
	return p.rest()
}

func (p *process) rest() []string {
	var out []string
	for {
		l, ok := p.next()
		if !ok {
			break
		}
		out = append(out, l)
	}
	p.stdin.Close()
	p.cmd.Wait()
	return out
}

// acked is what children were promised.
type acked struct {
	leaves, burnt []string
	errors        []string
}

func (a *acked) take(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "ack":
		a.leaves = append(a.leaves, rest)
	case "burnt":
		a.burnt = append(a.burnt, rest)
	case "error":
		a.errors = append(a.errors, rest)
	}
}

// kept checks that nothing acknowledged is lost.
func (a *acked) kept(t testing.TB, s *Store) {
	t.Helper()
	ctx := within(t)
	for _, id := range a.leaves {
		if _, err := s.Leaf(ctx, id); err != nil {
			t.Errorf("an acknowledged leaf is lost: %v", err)
		}
	}
}
