package record

import (
	"context"
	"database/sql"
	"errors"

	"github.com/exeq/exeq"
)

// errOnce: another call, perhaps of another process, recorded it already.
var errOnce = errors.New("recorded already")

// RecordFirst records entries if nothing is on record yet. The transaction that
// writes them decides it: of several processes at once one records them, and
// a crash leaves all of them or none. It reports whether this call was it.
func (s *Store) RecordFirst(ctx context.Context, entries ...exeq.Entry) (bool, error) {
	return s.recordUnless(ctx, func(g *grouped) (bool, error) {
		return g.first > 1 || len(g.hashes) > 0, nil
	}, entries)
}

// RecordOnce records entries and keeps a blob under key, unless that blob is
// there with the same bytes: decided as RecordFirst does.
func (s *Store) RecordOnce(ctx context.Context, key exeq.Digest, blob []byte, entries ...exeq.Entry) (bool, error) {
	sum := blobSum(key, blob)
	return s.recordUnless(ctx, func(g *grouped) (bool, error) {
		var have, haveSum []byte
		err := g.w.scan(sqlGetBlob, []any{key[:]}, &have, &haveSum)
		switch {
		case err == nil && string(have) == string(blob) && string(haveSum) == string(sum):
			return true, nil
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return false, err
		}
		_, err = g.w.exec(sqlBlob, key[:], blob, sum)
		return false, err
	}, entries)
}

func (s *Store) recordUnless(ctx context.Context, unless func(*grouped) (bool, error), entries []exeq.Entry) (bool, error) {
	_, err := s.record(ctx, unless, entries)
	if errors.Is(err, errOnce) {
		return false, nil
	}
	return err == nil, err
}
