package record

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
)

// Fsck checks everything and remembers the outcome: what is found damaged keeps
// permits out, in this process and the next ones, until a check passes.
func (s *Store) Fsck(ctx context.Context) error {
	err := s.check(ctx)
	if err != nil && (ctx.Err() != nil || !errors.Is(err, ErrDamaged)) {
		return recordErr("check", err) // it could not be made, which says nothing about the store
	}
	return s.judged(err)
}

// check checks everything that the store and the log hold: SQLite's own
// structure, every promise over its leaves, every chain, every signature of a
// leaf, every commitment against what opens it, every placement against the
// log's bytes, and the log against its checkpoint (by Tessera's fsck) and the
// witness policy. An error wraps [exeq.ErrRecord] and says what is damaged; it
// names the first fault of each kind.
func (s *Store) check(ctx context.Context) error {
	f := &checker{s: s, ctx: ctx, chains: map[string]link{}, keys: map[string]ed25519.PublicKey{}}
	for _, role := range []string{exeq.RoleIssuer, exeq.RoleNode} {
		for _, k := range s.c.Keys.Known(role) {
			f.keys[exeq.KeyID(k)] = k
		}
	}
	// Others may record and drain meanwhile. What the log holds now is in any
	// later view of the store; what that view notes is in the log from then on.
	before, err := s.log.integrated()
	if err != nil {
		return err
	}
	f.before = before.N
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one view for all of it
	if err != nil {
		return explain("check store.db", err)
	}
	defer tx.Rollback()
	f.q = tx
	var errs []error
	for _, check := range []func() error{f.structure, f.leaves, f.strays, f.burns, f.placements, f.blobs, f.log} {
		if err := check(); err != nil {
			errs = append(errs, explain("check", err))
		}
	}
	return errors.Join(errs...)
}

// checker is one run of Fsck.
type checker struct {
	s      *Store
	ctx    context.Context
	q      *sql.Tx
	st     *state
	last   int64 // row
	before int64 // size of the log before the view was taken
	chains map[string]link
	keys   map[string]ed25519.PublicKey
}

// link is the end of an execution's chain so far.
type link struct {
	seq  int
	hash exeq.Digest
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: store.db: %w", ErrDamaged, fmt.Errorf(format, args...))
}

func (f *checker) structure() error {
	rows, err := f.q.QueryContext(f.ctx, `PRAGMA integrity_check(1)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var word string
		if err := rows.Scan(&word); err != nil {
			return err
		}
		if word != "ok" {
			return damaged("%s", word)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := f.schema(); err != nil {
		return err
	}
	if f.st, err = scanState(f.q.QueryRowContext(f.ctx, selectState)); err != nil {
		return err
	}
	if err := f.q.QueryRowContext(f.ctx, sqlLastRow).Scan(&f.last); err != nil {
		return err
	}
	if f.st.covered > f.last {
		return damaged("%d rows are noted as in the log, there are only %d", f.st.covered, f.last)
	}
	return nil
}

// schema checks that tables and indexes are those that create makes: SQLite
// believes whatever text stands there.
func (f *checker) schema() error {
	rows, err := f.q.QueryContext(f.ctx, `SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close()
	have := map[string]bool{}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		have[plainSchema(text)] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	n := 0
	for text := range strings.SplitSeq(commentless(schema), ";") {
		if text = plainSchema(text); text == "" {
			continue
		}
		n++
		if !have[text] {
			return damaged("its schema lacks %.60q", text)
		}
	}
	if n != len(have) {
		return damaged("its schema has %d parts, not %d", len(have), n)
	}
	return nil
}

// plainSchema is a part of the schema without comments and spaces.
func plainSchema(text string) string { return strings.Join(strings.Fields(commentless(text)), " ") }

func commentless(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		b.WriteString(line + "\n")
	}
	return b.String()
}

// leaves walks batch by batch.
func (f *checker) leaves() error {
	batches, err := f.q.QueryContext(f.ctx, `SELECT first, n, time, note FROM batch ORDER BY first`)
	if err != nil {
		return err
	}
	defer batches.Close()
	rows, err := f.q.QueryContext(f.ctx, `SELECT l.row, l.id, l.kind, l.execution, l.seq, l.bytes, l.opened
		FROM leaf l ORDER BY l.row`)
	if err != nil {
		return err
	}
	defer rows.Close()
	promises := f.s.c.Keys.NoteVerifiers(exeq.RolePromise)
	next, latest := int64(1), int64(0)
	for batches.Next() {
		var b batchOf
		if err := batches.Scan(&b.first, &b.n, &b.ms, &b.note); err != nil {
			return err
		}
		if b.first != next || b.n < 1 || b.ms < latest {
			return damaged("the batch at row %d does not follow the one before it", b.first)
		}
		hashes := make([]exeq.Digest, 0, min(b.n, maxGroup))
		for ; next < b.first+b.n; next++ {
			if !rows.Next() {
				return damaged("row %d is missing", next)
			}
			h, err := f.leaf(rows, next)
			if err != nil {
				return err
			}
			hashes = append(hashes, h)
		}
		if err := checkPromise(promises, f.s.promise.Name(), b.note, hashes, b.ms); err != nil {
			return damaged("rows %d–%d: %w", b.first, next-1, err)
		}
		latest = b.ms
	}
	if err := batches.Err(); err != nil {
		return err
	}
	if rows.Next() {
		return damaged("rows from %d on have no promise", next)
	}
	if f.st != nil && f.st.latest < latest {
		return damaged("the latest recorded time is after the one that the state row holds")
	}
	return rows.Err()
}

func (f *checker) leaf(rows *sql.Rows, want int64) (exeq.Digest, error) {
	var row int64
	var id, kind string
	var execution sql.NullString
	var seq sql.NullInt64
	var bytes, data []byte
	if err := rows.Scan(&row, &id, &kind, &execution, &seq, &bytes, &data); err != nil {
		return exeq.Digest{}, err
	}
	l, err := exeq.ParseLeaf(bytes)
	if err != nil {
		return exeq.Digest{}, damaged("row %d: %w", row, err)
	}
	if row != want || l.ID != id || string(l.Kind) != kind || l.Execution != execution.String || execution.Valid && int64(l.Seq) != seq.Int64 {
		return exeq.Digest{}, damaged("row %d: its columns do not say what its leaf says", row)
	}
	hash := exeq.LeafHash(bytes)
	if err := errors.Join(f.chain(l, hash), f.signature(l), opens(l, data)); err != nil {
		return exeq.Digest{}, damaged("row %d: %w", row, err)
	}
	return hash, nil
}

// chain checks that each execution's leaves follow each other without a gap.
func (f *checker) chain(l *exeq.Leaf, hash exeq.Digest) error {
	if l.Execution == "" {
		return nil
	}
	c, begun := f.chains[l.Execution]
	switch {
	case !begun && (l.Seq != 0 || !l.Prev.IsZero()):
		return fmt.Errorf("leaf %s begins the chain of %s at %d", l.ID, l.Execution, l.Seq)
	case begun && (l.Seq != c.seq+1 || l.Prev != c.hash):
		return fmt.Errorf("leaf %s does not follow the one before it in the chain of %s", l.ID, l.Execution)
	}
	f.chains[l.Execution] = link{seq: l.Seq, hash: hash}
	return nil
}

// signature checks leaves that carry one; key leaves add keys as they come.
func (f *checker) signature(l *exeq.Leaf) error {
	if l.Key == "" {
		if l.Kind != exeq.KindPermit {
			return fmt.Errorf("leaf %s is not signed", l.ID)
		}
		return nil
	}
	key, known := f.keys[l.Key]
	if !known {
		return fmt.Errorf("leaf %s is signed by a key that no key leaf added", l.ID)
	}
	msg, err := l.Signable()
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(l.Signature)
	if err != nil || len(sig) != ed25519.SignatureSize || !ed25519.Verify(key, msg, sig) {
		return fmt.Errorf("the signature of leaf %s does not verify", l.ID)
	}
	if l.Kind == exeq.KindKey {
		pub, err := base64.StdEncoding.Strict().DecodeString(l.Body.PublicKey)
		if err != nil || len(pub) != ed25519.PublicKeySize {
			return fmt.Errorf("leaf %s holds no key", l.ID)
		}
		f.keys[exeq.KeyID(pub)] = pub
	}
	return nil
}

// opens checks that what was stored to open a leaf's commitments does. Erased
// is whole: all or nothing.
func opens(l *exeq.Leaf, data []byte) error {
	if data == nil {
		return nil
	}
	ds, err := decodeDisclosures(l.ID, data)
	if err != nil {
		return err
	}
	if len(ds) != len(l.Commitments) {
		return fmt.Errorf("leaf %s has %d commitments and %d disclosures", l.ID, len(l.Commitments), len(ds))
	}
	for i := range ds {
		d, err := ds[i].Digest()
		if err != nil {
			return err
		}
		if want, ok := l.Commitments[ds[i].Field]; !ok || want != d {
			return fmt.Errorf("the disclosure of %q does not open its commitment in leaf %s", ds[i].Field, l.ID)
		}
	}
	return nil
}

// strays looks for rows that belong to nothing.
func (f *checker) strays() error {
	for _, c := range []struct{ what, query string }{
		{"a burnt permit is not on record", `SELECT count(*) FROM burn WHERE permit NOT IN (SELECT execution FROM leaf WHERE kind = 'permit')
			AND EXISTS (SELECT 1 FROM leaf WHERE kind = 'permit')`},
	} {
		var n int
		if err := f.q.QueryRowContext(f.ctx, c.query).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return damaged("%s (%d of them)", c.what, n)
		}
	}
	return nil
}

// burns checks each row of the burn list by itself. Rows of a build that wrote
// the nonce alone hold no colon.
func (f *checker) burns() error {
	rows, err := f.q.QueryContext(f.ctx, `SELECT permit, nonce, until FROM burn`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var permit, stored string
		var ms int64
		if err := rows.Scan(&permit, &stored, &ms); err != nil {
			return err
		}
		const head = len("v1:0123456789abcdef:")
		if !strings.Contains(stored, ":") {
			continue
		}
		if len(stored) < head || stored[:head] != burnSum(permit, stored[head:], ms)+":" {
			return damaged("the burn of permit %.40q", permit)
		}
	}
	return rows.Err()
}

// placements compares every placed row with the log's bytes at its index.
func (f *checker) placements() error {
	if f.st == nil {
		return nil // said already
	}
	tree, err := f.s.log.integrated()
	if err != nil {
		return err
	}
	if tree.N < f.st.size {
		return fmt.Errorf("%w: the log holds %d entries, the store saw %d", ErrDamaged, tree.N, f.st.size)
	}
	rows, err := f.q.QueryContext(f.ctx, `SELECT row, n, idx FROM placed ORDER BY row`)
	if err != nil {
		return err
	}
	defer rows.Close()
	next := int64(1)
	for rows.Next() {
		var p placement
		if err := rows.Scan(&p.row, &p.n, &p.index); err != nil {
			return err
		}
		if p.row < next || p.row > next && p.row <= f.st.covered || p.n < 1 || p.index < 0 || p.index+p.n > tree.N {
			return damaged("the placement of row %d is not possible", p.row)
		}
		next = p.row + p.n
		if err := f.placed(tree, p); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := f.unnoted(tree); err != nil {
		return err
	}
	if next <= f.st.covered {
		return damaged("rows from %d on are noted as in the log and have no place there", next)
	}
	return nil
}

// unnoted checks entries of the log whose index was not yet written back.
func (f *checker) unnoted(tree tlog.Tree) error {
	return f.s.log.entries(tree, f.st.size, f.before, func(index int64, entry []byte) error {
		leaf, err := exeq.ParseLeaf(entry)
		if err != nil {
			return fmt.Errorf("%w: entry %d of the log: %w", ErrDamaged, index, err)
		}
		var n int
		if err := f.q.QueryRowContext(f.ctx, `SELECT count(*) FROM leaf WHERE id = ? AND bytes = ?`, leaf.ID, entry).Scan(&n); err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("%w: the log holds entry %d that the store does not: store.db was rolled back", ErrDamaged, index)
		}
		return nil
	})
}

func (f *checker) placed(tree tlog.Tree, p placement) error {
	leaves, err := f.q.QueryContext(f.ctx, `SELECT bytes FROM leaf WHERE row >= ? AND row < ? ORDER BY row`, p.row, p.row+p.n)
	if err != nil {
		return err
	}
	defer leaves.Close()
	return f.s.log.entries(tree, p.index, p.index+p.n, func(index int64, entry []byte) error {
		var have sql.RawBytes
		if !leaves.Next() {
			return damaged("row %d is missing", p.row+index-p.index)
		}
		if err := leaves.Scan(&have); err != nil {
			return err
		}
		if string(have) != string(entry) {
			return fmt.Errorf("%w: row %d of store.db is not what the log holds at %d", ErrDamaged, p.row+index-p.index, index)
		}
		return nil
	})
}

func (f *checker) blobs() error {
	rows, err := f.q.QueryContext(f.ctx, `SELECT digest, data, sum FROM blob`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var digest, data, sum []byte
		if err := rows.Scan(&digest, &data, &sum); err != nil {
			return err
		}
		if len(digest) != len(exeq.Digest{}) || string(sum) != string(blobSum(exeq.Digest(digest), data)) {
			return damaged("blob %x", digest)
		}
	}
	return rows.Err()
}
