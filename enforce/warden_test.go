//go:build linux

package enforce

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// slow is a warden whose answers to some questions do not come before the
// question is given up; during is told when one is under way.
type slow struct {
	renew, hold bool
	during      func()
}

func (w *slow) wait(ctx context.Context) error {
	w.during()
	<-ctx.Done()
	return ctx.Err()
}

func (w *slow) Tier() exeq.Tier { return exeq.TierRootless }
func (w *slow) Enclose(context.Context, int, int, netip.AddrPort, []string) (*exeq.Enclosure, error) {
	return &exeq.Enclosure{}, nil
}
func (w *slow) Approve(context.Context, string, exeq.Digest, *os.File, bool) error { return nil }
func (w *slow) Withdraw(context.Context, string, exeq.Digest) error                { return nil }
func (w *slow) Challenge(context.Context) (string, error)                          { return newChallenge(), nil }
func (w *slow) Denied() []exeq.Activity                                            { return nil }
func (w *slow) Resume(context.Context) error                                       { return nil }
func (w *slow) Over(context.Context) (ended, err error)                            { return nil, nil }

func (w *slow) Renew(ctx context.Context, _ exeq.Renewal) error {
	if w.renew {
		return w.wait(ctx)
	}
	return nil
}

func (w *slow) Hold(ctx context.Context) error {
	if w.hold {
		return w.wait(ctx)
	}
	return nil
}

// TestEndsMeanwhile: an execution that ends by itself while the warden is asked
// ended by itself. It did not lapse.
func TestEndsMeanwhile(t *testing.T) {
	for name, w := range map[string]*slow{"renew": {renew: true}, "hold": {hold: true}} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.warden = w
			stdin, end, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			b.stdin = stdin
			a := newAlive(t)
			r := b.launchWith(a, "sh", "-c", "echo runs; read line; exit 7")
			stdin.Close()
			a.line(t)
			ev, err := r.Evidence(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if w.renew {
				w.during = func() { end.Close() }
				err = r.Renew(exeq.Renewal{Permit: "test", Challenge: ev.Challenge, Millis: b.lease.Milliseconds()})
			} else {
				w.during = func() { r.(*running).signalAll(unix.SIGKILL); end.Close() } // it stands still
				err = r.Hold()
			}
			if !errors.Is(err, exeq.ErrGone) {
				t.Errorf("%v, want %v", err, exeq.ErrGone)
			}
			if exit, err := r.Wait(); err != nil || w.renew && exit.Code != 7 || r.Lapsed() != nil {
				t.Errorf("exit %+v, %v, lapsed %v", exit, err, r.Lapsed())
			}
		})
	}
}
