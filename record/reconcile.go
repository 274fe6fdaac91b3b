package record

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

// reconcile reads the entries behind the recorded size: leaves that were
// integrated and whose index a crash kept from being written back.
func (l *openLog) reconcile(ctx context.Context, tree tlog.Tree, from int64) error {
	if from == tree.N {
		return nil
	}
	var ps []placement
	err := l.s.log.entries(tree, from, tree.N, func(index int64, entry []byte) error {
		leaf, err := exeq.ParseLeaf(entry)
		if err != nil {
			return fmt.Errorf("%w: entry %d of the log: %w", ErrDamaged, index, err)
		}
		var row int64
		var bytes []byte
		err = l.s.read.QueryRowContext(ctx, `SELECT row, bytes FROM leaf WHERE id = ?`, leaf.ID).Scan(&row, &bytes)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: the log holds leaf %s that the store does not: store.db was rolled back", ErrDamaged, leaf.ID)
		}
		if err != nil {
			return explain("reconcile", err)
		}
		if string(bytes) != string(entry) {
			return fmt.Errorf("%w: leaf %s says one thing in the log and another in the store", ErrDamaged, leaf.ID)
		}
		if !l.isPlaced(row) && row > l.covered {
			ps = extend(ps, row, index)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.note(ctx, ps, tree.N)
}

// extend adds one row at one index, to the last placement where it continues it.
func extend(ps []placement, row, index int64) []placement {
	if n := len(ps) - 1; n >= 0 && ps[n].row+ps[n].n == row && ps[n].index+ps[n].n == index {
		ps[n].n++
		return ps
	}
	return append(ps, placement{row, 1, index})
}
