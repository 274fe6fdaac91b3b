package policy

import (
	"strings"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// contextKey is everything that a context record without claims, counts and
// arguments depends on.
type contextKey struct {
	has                                   deps
	tier                                  exeq.Tier
	risk                                  int
	workspace, home, tmp, command, labels string
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

// contextRecord gives the record of the members in q.has, from the cache where
// it may stand there.
func (q *query) contextRecord() types.Record {
	if q.has&(depClaimed|depArgs|depCounts) != 0 {
		return q.record()
	}
	c := &q.request.Context
	k := contextKey{has: q.has, tier: q.in.Tier, risk: q.in.Risk, workspace: c.Workspace, home: c.Home, tmp: c.Tmp, command: c.Command}
	if q.has&depLabels != 0 {
		// A NUL could be in a label of a caller who does not keep to
		// shortName, and two lists would look alike.
		for _, l := range q.in.Session.Labels {
			if strings.IndexByte(l, 0) >= 0 {
				return q.record()
			}
		}
		k.labels = strings.Join(q.in.Session.Labels, "\x00")
		if len(q.in.Session.Labels) > 0 {
			k.has |= depWhole // no label is not one empty label
		}
	}
	return q.set.contexts.get(k, q.record)
}
