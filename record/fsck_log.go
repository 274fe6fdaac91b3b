package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/tlog"
)

// log has Tessera's fsck rebuild every tile of the published log from its
// entries, and checks the edge that is integrated and not yet published.
func (f *checker) log() error {
	cp, err := f.s.log.checkpoint()
	if errors.Is(err, errNoLog) && f.st != nil && f.st.covered == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if f.st != nil && cp.tree.N < f.st.covered {
		return fmt.Errorf("%w: the checkpoint covers %d entries, the store saw one of %d", ErrDamaged, cp.tree.N, f.st.covered)
	}
	if policy, err := os.ReadFile(filepath.Join(f.s.c.Dir, WitnessPolicy)); err == nil {
		group, err := tessera.NewWitnessGroupFromPolicy(policy)
		if err != nil {
			return recordErr("witness policy", err)
		}
		if cp.tree.N > 0 && !group.Satisfied(cp.raw) {
			return fmt.Errorf("%w: the published checkpoint lacks the quorum of the witness policy", ErrDamaged)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return recordErr("witness policy", err)
	}
	tree, err := f.s.log.integrated()
	if err != nil {
		return err
	}
	if err := f.s.log.checkEdge(tree, true); err != nil {
		return err
	}
	if cp.tree.N == 0 {
		return nil
	}
	quietTessera(f.s.c.Log)
	v := f.s.log.verifier
	err = fsck.New(v.Name(), v, fetcher{f.s.log.dir, cp.raw}, bundleHashes, fsck.Opts{N: 2}).Check(f.ctx)
	if err != nil {
		return fmt.Errorf("%w: the log: %w", ErrDamaged, err)
	}
	return nil
}

// fetcher gives Tessera's fsck the files of the log as of one checkpoint.
type fetcher struct {
	dir        string
	checkpoint []byte
}

func (f fetcher) ReadCheckpoint(context.Context) ([]byte, error) { return f.checkpoint, nil }

func (f fetcher) ReadTile(_ context.Context, level, index uint64, p uint8) ([]byte, error) {
	return readPartial(f.dir, int(p), func(p uint8) string { return layout.TilePath(level, index, p) })
}

func (f fetcher) ReadEntryBundle(_ context.Context, index uint64, p uint8) ([]byte, error) {
	b, err := readPartial(f.dir, int(p), func(p uint8) string { return layout.EntriesPath(index, p) })
	if err != nil {
		return nil, err
	}
	// fsck indexes the entries of the bundle that the tree asks for and panics
	// where there are fewer.
	want := int(p)
	if want == 0 {
		want = layout.EntryBundleWidth
	}
	if hs, err := bundleHashes(b); err != nil || len(hs) < want {
		return nil, fmt.Errorf("bundle %d holds %d entries of %d", index, len(hs), want)
	}
	return b, nil
}

// bundleHashes gives the leaf hashes of an entry bundle.
func bundleHashes(b []byte) ([][]byte, error) {
	var out [][]byte
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return nil, errors.New("an entry bundle is cut short")
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		h := tlog.RecordHash(b[2:n])
		out = append(out, h[:])
		b = b[n:]
	}
	return out, nil
}
