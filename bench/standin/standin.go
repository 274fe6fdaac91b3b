// Package standin stands in for enforcement where the benchmarks measure the
// rest of the flow: its execution asks to read a forbidden file again and
// again, since each denial is a leaf of its own, and ends.
package standin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/exeq/exeq"
)

// Enforcer is an [exeq.Enforcer] that enforces nothing, for nothing runs.
type Enforcer struct {
	Denials int // how often a forbidden file is asked for
}

// Tier implements exeq.Enforcer.
func (Enforcer) Tier() exeq.Tier { return exeq.TierRootless }

// Launch implements exeq.Enforcer.
func (s Enforcer) Launch(ctx context.Context, l *exeq.Launch) (exeq.Running, error) {
	a := exeq.Applied{Tier: exeq.TierRootless, LandlockABI: 7, Canary: "none: a stand-in of the benchmark",
		Seen: map[string]string{"exec": "all", "map": "all", "read": "denials", "write": "denials", "connect": "all"},
		Environment: exeq.Environment{BootID: "bench", Seccomp: "filter", NoNewPrivs: true, Landlock: 7,
			Namespaces: map[string]string{}}}
	if err := l.Ready(a); err != nil {
		return nil, err
	}
	run := &running{applied: a, begun: time.Now(), gone: make(chan struct{})}
	go func() {
		defer close(run.gone)
		for range s.Denials {
			l.Gate.Ask(ctx, exeq.Activity{Action: exeq.ActionRead, Resource: exeq.Resource{Type: "Path", ID: "/etc/shadow"}})
		}
	}()
	return run, nil
}

type running struct {
	applied   exeq.Applied
	begun     time.Time
	sequence  uint64
	challenge string
	gone      chan struct{}
}

func (r *running) Applied() exeq.Applied { return r.applied }

func (r *running) Evidence(context.Context) (*exeq.Evidence, error) {
	r.sequence++
	r.challenge = strings.ReplaceAll(exeq.NewID(), "-", "")
	return &exeq.Evidence{Sequence: r.sequence, Time: exeq.At(time.Now()), Challenge: r.challenge,
		Environment: r.applied.Environment, Processes: 1, WallMillis: time.Since(r.begun).Milliseconds(),
		Supervisor: true, Watchdog: true}, nil
}

func (r *running) Renew(n exeq.Renewal) error {
	if n.Challenge != r.challenge {
		return fmt.Errorf("%w: another challenge", exeq.ErrLapsed)
	}
	return nil
}

func (r *running) Reload(context.Context) error { return nil }
func (r *running) Hold() error                  { return errors.New("not held") }
func (r *running) Resume() error                { return errors.New("not held") }
func (r *running) Stops() <-chan bool           { return nil }
func (r *running) Kill(string) error            { <-r.gone; return nil }
func (r *running) Exited()                      { <-r.gone }
func (r *running) Lapsed() error                { return nil }
func (r *running) Wait() (exeq.Exit, error)     { <-r.gone; return exeq.Exit{}, nil }
