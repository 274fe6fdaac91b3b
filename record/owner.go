package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/exeq/exeq"
)

// owner is the process that runs an execution. A pid alone means nothing once
// it is used again, after a reboot, or in another pid namespace.
type owner struct {
	pid                  int
	started, boot, pidns string
}

var self = sync.OnceValues(func() (owner, error) {
	o := owner{pid: os.Getpid()}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if errors.Is(err, os.ErrNotExist) {
		return o, nil // not Linux: nothing runs here
	}
	if err != nil {
		return o, err
	}
	o.boot = strings.TrimSpace(string(boot))
	if o.started, err = startOf(o.pid); err != nil {
		return o, err
	}
	o.pidns, err = os.Readlink("/proc/self/ns/pid")
	return o, err
})

// startOf is field 22 of /proc/PID/stat: when a process began.
func startOf(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// Field 2 is the name in parentheses and may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", os.ErrNotExist // a dead process that nobody waited for
	}
	return fields[19], nil
}

type life int

const (
	dead life = iota
	alive
	unknown // in another pid namespace
)

func (o *owner) alive() life {
	me, err := self()
	if err != nil {
		return unknown
	}
	if o.boot != me.boot {
		return dead
	}
	if o.pidns != me.pidns {
		return unknown
	}
	started, err := startOf(o.pid)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return dead
	case err != nil:
		return unknown
	case started != o.started:
		return dead
	}
	return alive
}

// ownedByThis registers this process as the owner of an execution.
func (w *writer) ownedByThis(execution string) error {
	me, err := self()
	if err != nil {
		return err
	}
	_, err = w.exec(sqlOwn, execution, me.pid, me.started, me.boot, me.pidns)
	return err
}

// Own registers this process as the one that runs an execution. Recording a
// start does so by itself and recording the end releases it.
func (s *Store) Own(ctx context.Context, execution string) error {
	return s.write(ctx, func(w *writer, _ *state) error { return w.ownedByThis(execution) })
}

// Release says that this execution runs no more.
func (s *Store) Release(ctx context.Context, execution string) error {
	return s.write(ctx, func(w *writer, _ *state) error {
		_, err := w.exec(sqlDisown, execution)
		return err
	})
}

func owners(ctx context.Context, q queryer) (map[string]owner, error) {
	rows, err := q.QueryContext(ctx, `SELECT execution, pid, started, boot, pidns FROM owner`)
	if err != nil {
		return nil, explain("read owners", err)
	}
	defer rows.Close()
	out := map[string]owner{}
	for rows.Next() {
		var id string
		var o owner
		if err := rows.Scan(&id, &o.pid, &o.started, &o.boot, &o.pidns); err != nil {
			return nil, explain("read owners", err)
		}
		out[id] = o
	}
	return out, explain("read owners", rows.Err())
}

// Recovery is what an earlier run left behind and what was done about it.
type Recovery struct {
	Outbox  int      // leaves that were promised and not yet in the log
	Drained int      // of these, put into the log now
	Lost    []string // executions sealed as lost: their owner is dead
	Overdue bool     // the oldest waited longer than a drainer that lives lets it
	Live    bool     // an execution has an owner that lives; stopped (^Z) it drains nothing
}

// Findings says it in words, one line each; empty when nothing was found.
func (r *Recovery) Findings() []string {
	var out []string
	for _, id := range r.Lost {
		out = append(out, fmt.Sprintf("execution %s was lost: its supervisor died before the end; sealed as lost", id))
	}
	// Younger leaves are only some that a drainer had not come to yet, and those of
	// a run that is under way were left by nobody.
	if r.Drained > 0 && (r.Overdue && !r.Live || len(r.Lost) > 0) {
		out = append(out, fmt.Sprintf("%d leaves of an earlier run had not reached the log; they are in it now", r.Drained))
	}
	return out
}

// found is what open saw: most runs find nothing, and then Recover need not
// look again.
type found struct {
	owners  map[string]owner
	waiting int
	lag     time.Duration
	empty   bool
	behind  bool // the log holds more than the store knows of
}

func (s *Store) look(ctx context.Context, st *state) (err error) {
	if s.found.owners, err = owners(ctx, s.writer.conn); err != nil {
		return err
	}
	if s.found.waiting, s.found.lag, err = s.writer.waiting(st, s.c.Now()); err != nil {
		return err
	}
	s.found.empty = s.found.waiting == 0 && st.covered == 0
	cp, err := s.log.checkpoint()
	switch {
	case errors.Is(err, errNoLog) && st.covered == 0:
		return nil
	case errors.Is(err, errNoLog):
		return fmt.Errorf("%w: the published log is gone, and the store saw entries in it", ErrDamaged)
	case err != nil:
		return recordErr("open the log", err)
	case cp.tree.N < st.covered: // every covered row is in it
		return fmt.Errorf("%w: the published checkpoint covers %d entries, the store saw one of %d: the log was rolled back", ErrDamaged, cp.tree.N, st.covered)
	}
	s.found.behind = cp.tree.N > st.size
	return nil
}

// Recover puts right what a killed run left: seals its executions as lost, and
// drains an outbox whose age would soon keep new permits from being recorded,
// or whose place in the log a crash kept from being noted. Younger leaves are
// left to whoever drains them. A damaged store is an error.
func (s *Store) Recover(ctx context.Context) (*Recovery, error) {
	r := &Recovery{Outbox: s.found.waiting}
	if err := s.Damage(); err != nil {
		return r, err
	}
	for id, o := range s.found.owners {
		if o.alive() != dead {
			r.Live = true
			continue
		}
		sealed, err := s.sealLost(ctx, id)
		if err != nil {
			return r, err
		}
		if sealed {
			r.Lost = append(r.Lost, id)
		}
	}
	slices.Sort(r.Lost)
	if s.found.lag > exeq.MaxMergeDelay/2 || s.found.behind {
		if err := s.Drain(ctx); err != nil {
			return r, err
		}
		r.Drained, r.Overdue = s.found.waiting, s.found.lag > exeq.MaxMergeDelay
	}
	return r, nil
}

// SealLost appends the end of an execution that started and of which its owner
// knows that nothing lives; false: there was nothing to seal.
func (s *Store) SealLost(ctx context.Context, id string) (bool, error) { return s.sealLost(ctx, id) }

// sealLost appends the end of an execution that started and whose owner is
// dead. Of several processes that do so at once, one succeeds.
func (s *Store) sealLost(ctx context.Context, id string) (bool, error) {
	leaves, err := s.leaves(ctx, `WHERE l.execution = ?1 AND l.seq IN ((SELECT max(seq) FROM leaf WHERE execution = ?1),
		(SELECT seq FROM leaf WHERE execution = ?1 AND kind = 'start')) ORDER BY l.seq`, id)
	if err != nil {
		return false, err
	}
	if len(leaves) == 0 || leaves[len(leaves)-1].Leaf.Kind == exeq.KindEnd || leaves[0].Leaf.Kind != exeq.KindStart {
		return false, s.Release(ctx, id) // nothing ran, or its end is on record
	}
	last := &leaves[len(leaves)-1]
	e, err := exeq.NewEntry(exeq.Leaf{
		Kind: exeq.KindEnd, Execution: id, Parent: last.Leaf.Parent, Seq: last.Leaf.Seq + 1, Prev: exeq.LeafHash(last.Bytes),
		Actor: last.Leaf.Actor, Body: exeq.LeafBody{Code: "lost"},
	}, nil, s.c.Keys.Signer(exeq.RoleNode))
	if err != nil {
		return false, fmt.Errorf("%w: %w", exeq.ErrRecord, err)
	}
	if _, err := s.Record(ctx, e); err != nil {
		again, rerr := owners(ctx, s.read)
		if _, still := again[id]; rerr == nil && !still {
			return false, nil // another process was first
		}
		return false, err
	}
	return true, nil
}
