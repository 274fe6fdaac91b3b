package record

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// logReader reads the log's files as anyone could who has them: every hash it
// gives out is authenticated by a checkpoint under the log key.
type logReader struct {
	dir      string
	verifier note.Verifier

	mu    sync.Mutex
	stamp string // of the checkpoint file that cached was read from
	cache *checkpoint

	latest   atomic.Pointer[string] // as Latest gives it
	latestAt atomic.Int64           // when it was read, ns of the monotonic clock
}

// checkpoint is a verified signed tree head.
type checkpoint struct {
	raw  []byte
	tree tlog.Tree
}

func newLogReader(dir string, keys *keyring.Ring) *logReader {
	return &logReader{dir: dir, verifier: keys.NoteVerifier(exeq.RoleLog)}
}

// errNoLog: nothing was published yet.
var errNoLog = errors.New("the log has no checkpoint yet")

// checkpoint reads the published checkpoint and verifies it, once a version of
// the file.
func (l *logReader) checkpoint() (*checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := filepath.Join(l.dir, layout.CheckpointPath)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoLog
	}
	if err != nil {
		return nil, recordErr("read checkpoint", err)
	}
	stamp := fileStamp(info)
	if l.cache != nil && stamp == l.stamp {
		return l.cache, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, recordErr("read checkpoint", err)
	}
	cp, err := l.parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w", ErrDamaged, path, err)
	}
	// A file that changes while it is read is read again next time; one that
	// changed within the clock's grain is too.
	if time.Since(info.ModTime()) > 20*time.Millisecond {
		l.stamp, l.cache = stamp, cp
	}
	return cp, nil
}

// parse verifies a checkpoint and insists on its one spelling.
func (l *logReader) parse(raw []byte) (*checkpoint, error) {
	n, err := note.Open(raw, note.VerifierList(l.verifier))
	if err != nil {
		return nil, errors.New("it is not signed by the log key")
	}
	tree, err := parseTree(n.Text, l.verifier.Name())
	if err != nil {
		return nil, err
	}
	return &checkpoint{raw, *tree}, nil
}

// parseTree reads a checkpoint's text: origin, size, root, nothing more.
func parseTree(text, origin string) (*tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != origin || lines[3] != "" {
		return nil, errors.New("its text is not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return nil, errors.New("its size is not a number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return nil, errors.New("its root is not a hash")
	}
	return &tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

// tiles implements [tlog.TileReader] on the directory.
type tiles struct{ dir string }

func (t tiles) Height() int                     { return layout.TileHeight }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, w := range want {
		b, err := readPartial(t.dir, w.W, func(p uint8) string { return layout.TilePath(uint64(w.L), uint64(w.N), p) })
		if err != nil {
			return nil, err
		}
		if len(b) < w.W*tlog.HashSize {
			return nil, fmt.Errorf("%w: tile %s of the log is cut short", ErrDamaged, w.Path())
		}
		out[i] = b[:w.W*tlog.HashSize]
	}
	return out, nil
}

// readPartial reads a resource of the given width, from its full version where
// the partial one is gone.
func readPartial(dir string, width int, path func(p uint8) string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, path(uint8(width%layout.TileWidth))))
	if errors.Is(err, fs.ErrNotExist) && width%layout.TileWidth != 0 {
		b, err = os.ReadFile(filepath.Join(dir, path(0)))
	}
	return b, recordErr("read log", err)
}

// hashes reads hashes that the tree's root authenticates.
func (l *logReader) hashes(tree tlog.Tree) tlog.HashReader {
	return tlog.TileHashReader(tree, tiles{l.dir})
}

// entries reads the entries [from, to) of a log of the given tree, each
// checked against the tree.
func (l *logReader) entries(tree tlog.Tree, from, to int64, f func(index int64, entry []byte) error) error {
	const width = layout.EntryBundleWidth
	for from < to {
		bundle := from / width
		have := min(tree.N-bundle*width, width)
		b, err := readPartial(l.dir, int(have), func(p uint8) string { return layout.EntriesPath(uint64(bundle), p) })
		if err != nil {
			return err
		}
		want := make([]int64, 0, width)
		for i := from; i < min(to, bundle*width+have); i++ {
			want = append(want, tlog.StoredHashIndex(0, i))
		}
		hs, err := l.hashes(tree).ReadHashes(want)
		if err != nil {
			return broken("the log's tiles do not give its root", err)
		}
		for i := bundle * width; i < from+int64(len(want)); i++ {
			if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
				return fmt.Errorf("%w: entry bundle %d of the log is cut short", ErrDamaged, bundle)
			}
			n := 2 + int(binary.BigEndian.Uint16(b))
			entry := b[2:n]
			b = b[n:]
			if i < from {
				continue
			}
			if tlog.RecordHash(entry) != hs[i-from] {
				return fmt.Errorf("%w: entry %d of the log is damaged: its bytes are not those that the tree holds", ErrDamaged, i)
			}
			if err := f(i, entry); err != nil {
				return err
			}
		}
		from += int64(len(want))
	}
	return nil
}

// prefix checks that the tree of size older is a prefix of newer's.
func (l *logReader) prefix(older, newer tlog.Tree) error {
	if older.N == 0 {
		return nil
	}
	if older.N > newer.N {
		return fmt.Errorf("%w: the log would shrink from %d to %d entries", ErrDamaged, older.N, newer.N)
	}
	p, err := tlog.ProveTree(newer.N, older.N, l.hashes(newer))
	if err == nil {
		err = tlog.CheckTree(p, newer.N, newer.Hash, older.N, older.Hash)
	}
	if err != nil {
		return broken(fmt.Sprintf("the log of %d entries does not continue the one of %d", newer.N, older.N), err)
	}
	return nil
}

// Checkpoint is the latest published checkpoint, a signed note.
func (s *Store) Checkpoint(context.Context) ([]byte, error) {
	cp, err := s.log.checkpoint()
	if err != nil {
		return nil, recordErr("checkpoint", err)
	}
	return cp.raw, nil
}

// Latest is the latest published checkpoint as a permit carries it,
// "size:root"; empty while there is none. It is a lower bound and may be behind
// by latestAge.
func (s *Store) Latest() string {
	l, now := s.log, int64(time.Since(started))
	if p := l.latest.Load(); p != nil && now-l.latestAt.Load() < int64(latestAge) {
		return *p
	}
	out := ""
	if cp, err := l.checkpoint(); err == nil && cp.tree.N > 0 {
		out = strconv.FormatInt(cp.tree.N, 10) + ":" + hex.EncodeToString(cp.tree.Hash[:])
	}
	l.latestAt.Store(now)
	l.latest.Store(&out)
	return out
}

// latestAge is half a checkpoint interval: looking more often finds nothing new.
const latestAge = interval / 2

var started = time.Now()

// Receipts proves that leaves (by id) are in the log, all under one
// checkpoint. A leaf that still waits is an error: Drain first.
func (s *Store) Receipts(ctx context.Context, leaves ...string) ([]exeq.Receipt, error) {
	cp, err := s.log.checkpoint()
	if err != nil {
		return nil, recordErr("receipt", err)
	}
	out := make([]exeq.Receipt, 0, len(leaves))
	for _, id := range leaves {
		l, err := s.leaves(ctx, `WHERE l.id = ?`, id)
		if err != nil {
			return nil, err
		}
		if len(l) != 1 {
			return nil, fmt.Errorf("no leaf %s: %w", id, fs.ErrNotExist)
		}
		if l[0].Index < 0 || l[0].Index >= cp.tree.N {
			return nil, fmt.Errorf("%w: leaf %s is not under a published checkpoint yet", exeq.ErrRecord, id)
		}
		text, err := s.log.proof(cp, l[0].Index, l[0].Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, exeq.Receipt{Leaf: id, Proof: text})
	}
	return out, nil
}

// proof writes a C2SP tlog-proof@v1 after checking it.
func (l *logReader) proof(cp *checkpoint, index int64, leaf []byte) (string, error) {
	path, err := tlog.ProveRecord(cp.tree.N, index, l.hashes(cp.tree))
	if err == nil {
		err = tlog.CheckRecord(path, cp.tree.N, cp.tree.Hash, index, tlog.RecordHash(leaf))
	}
	if err != nil {
		return "", broken(fmt.Sprintf("the log does not prove its entry %d", index), err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nindex %d\n", index)
	for _, h := range path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(cp.raw)
	return b.String(), nil
}

// Consistency proves (RFC 6962) that the log of size older is a prefix of the
// log of size newer, which may not be larger than the published one.
func (s *Store) Consistency(ctx context.Context, older, newer int64) ([]exeq.Digest, error) {
	cp, err := s.log.checkpoint()
	if err != nil {
		return nil, recordErr("consistency", err)
	}
	if older < 1 || older > newer || newer > cp.tree.N {
		return nil, fmt.Errorf("consistency: %d and %d are not sizes of a log of %d entries", older, newer, cp.tree.N)
	}
	p, err := tlog.ProveTree(newer, older, s.log.hashes(cp.tree))
	if err != nil {
		return nil, recordErr("consistency", err)
	}
	out := make([]exeq.Digest, len(p))
	for i, h := range p {
		out[i] = exeq.Digest(h)
	}
	return out, nil
}
