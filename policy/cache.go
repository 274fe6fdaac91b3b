package policy

import (
	"slices"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// contextKey is everything that a context record without claims, session and
// arguments depends on.
type contextKey struct {
	has                           deps
	tier                          exeq.Tier
	risk                          int
	workspace, home, tmp, command string
}

// contextCache keeps the records made last: the activities of an execution
// share theirs. A record is immutable, a lost race costs making it again.
type contextCache [8]atomic.Pointer[cachedContext]

type cachedContext struct {
	key    contextKey
	record types.Record
}

func (c *contextCache) get(k contextKey, build func() types.Record) types.Record {
	slot := &c[(uint32(k.has)*0x9E3779B1)>>29]
	if e := slot.Load(); e != nil && e.key == k {
		return e.record
	}
	e := &cachedContext{k, build()}
	slot.Store(e)
	return e.record
}

// sessionCache keeps the session record made last.
type sessionCache struct{ last atomic.Pointer[cachedSession] }

type cachedSession struct {
	session exeq.Session
	record  types.Record
}

func (c *sessionCache) get(s *exeq.Session) types.Record {
	if e := c.last.Load(); e != nil && sameSession(&e.session, s) {
		return e.record
	}
	e := &cachedSession{*s, sessionRecord(s)}
	e.session.Labels = slices.Clone(s.Labels)
	c.last.Store(e)
	return e.record
}

func sameSession(a, b *exeq.Session) bool {
	return a.Execs == b.Execs && a.Reads == b.Reads && a.Writes == b.Writes && a.Connects == b.Connects && a.Denials == b.Denials &&
		a.Processes == b.Processes && a.BytesOut == b.BytesOut && slices.Equal(a.Labels, b.Labels)
}
