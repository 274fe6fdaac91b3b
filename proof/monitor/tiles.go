package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/exeq/exeq"
)

// Sizes of C2SP tlog-tiles.
const (
	width         = 256 // hashes in a full tile, entries in a full bundle
	maxCheckpoint = 1 << 20
	maxBundle     = width * (2 + 0xffff)
	maxTile       = width * 32
)

// damage is what is wrong with the log's own files.
type damage struct {
	index int64
	why   string
}

func (d *damage) Error() string { return d.why }

// tree recomputes a log's tiles and root from its entries' hashes and compares
// each tile, once it is full, with the log's file.
type tree struct {
	log  fs.FS
	size int64
	// levels[l] holds the hashes of the tile of level l that is being filled,
	// counts[l] how many full ones came before it.
	levels [][]exeq.Digest
	counts []int64
}

// add takes the next leaf hash.
func (t *tree) add(h exeq.Digest) error {
	t.size++
	for l := 0; ; l++ {
		if l == len(t.levels) {
			t.levels, t.counts = append(t.levels, nil), append(t.counts, 0)
		}
		t.levels[l] = append(t.levels[l], h)
		if len(t.levels[l]) < width {
			return nil
		}
		if err := t.compare(l, t.counts[l], t.levels[l]); err != nil {
			return err
		}
		h = exeq.MerkleRoot(t.levels[l])
		t.levels[l] = t.levels[l][:0]
		t.counts[l]++
	}
}

// root is RFC 6962's hash of the tree so far.
func (t *tree) root() exeq.Digest {
	if t.size == 0 {
		return exeq.MerkleRoot(nil)
	}
	// A level's hashes are the roots of full subtrees, the levels below it are
	// what lies behind them: so from the right each level takes in the rest.
	var rest []exeq.Digest
	for _, hs := range t.levels {
		all := append(hs[:len(hs):len(hs)], rest...)
		if len(all) == 0 {
			continue
		}
		rest = []exeq.Digest{exeq.MerkleRoot(all)}
	}
	return rest[0]
}

// edges compares the tiles that are not full.
func (t *tree) edges() error {
	for l, hs := range t.levels {
		if len(hs) == 0 {
			continue
		}
		if err := t.compare(l, t.counts[l], hs); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) compare(level int, n int64, want []exeq.Digest) error {
	name := tilePath(strconv.Itoa(level), n)
	b, err := readWide(t.log, name, len(want), maxTile)
	if err != nil {
		return &damage{-1, fmt.Sprintf("tile %s: %s", name, err)}
	}
	size := len(exeq.Digest{})
	if len(b) < len(want)*size {
		return &damage{-1, fmt.Sprintf("tile %s: %d bytes for %d hashes", name, len(b), len(want))}
	}
	for i, h := range want {
		if !bytes.Equal(b[i*size:(i+1)*size], h[:]) {
			return &damage{-1, fmt.Sprintf("tile %s: hash %d is not what the entries give", name, i)}
		}
	}
	return nil
}

// tilePath is tlog-tiles' path of a tile: groups of three digits, all but the
// last with an x before.
func tilePath(level string, n int64) string {
	p := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		p = fmt.Sprintf("x%03d/%s", n%1000, p)
	}
	return "tile/" + level + "/" + p
}

// readWide reads a tile or bundle of which w are wanted: the partial one, or
// the full one that has come in its place.
func readWide(log fs.FS, name string, w int, limit int64) ([]byte, error) {
	if w < width {
		b, err := readFile(log, name+".p/"+strconv.Itoa(w), limit)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return readFile(log, name, limit)
}

func readFile(log fs.FS, name string, limit int64) ([]byte, error) {
	f, err := log.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is over %d bytes", name, limit)
	}
	return b, nil
}

// bundle splits an entry bundle: 16-bit big-endian lengths before the entries.
func bundle(b []byte, n int) ([][]byte, error) {
	out := make([][]byte, 0, n)
	for len(out) < n {
		if len(b) < 2 {
			return nil, fmt.Errorf("ends after %d of %d entries", len(out), n)
		}
		size := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < size {
			return nil, fmt.Errorf("entry %d is cut off", len(out))
		}
		out, b = append(out, b[:size]), b[size:]
	}
	return out, nil
}
