package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// checkWAL looks into a write-ahead log that a crash left behind, before
// SQLite does: SQLite takes the first frame whose checksum is wrong for the
// end and would silently forget all transactions behind it. A torn write can
// only be the last thing in the file, so a damaged frame with a committed one
// of the same generation behind it is damage. (What it cannot tell from a torn
// write is damage in the very last transaction.)
// Format: sqlite.org/fileformat2.html#the_write_ahead_log.
func checkWAL(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil
	}
	if err != nil {
		return recordErr("read write-ahead log", err)
	}
	const headerSize, frameHeader = 32, 24
	bad := func(what string) error {
		return fmt.Errorf("%w: %s: %s", ErrDamaged, path, what)
	}
	if len(b) < headerSize {
		return nil // nothing was ever committed to it
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch binary.BigEndian.Uint32(b) {
	case 0x377f0682:
	case 0x377f0683:
		order = binary.BigEndian
	default:
		return bad("it is no write-ahead log")
	}
	page := int(binary.BigEndian.Uint32(b[8:]))
	if page < 512 || page > 65536 || page&(page-1) != 0 {
		return bad("its header")
	}
	s0, s1 := walSum(order, 0, 0, b[:24])
	if s0 != binary.BigEndian.Uint32(b[24:]) || s1 != binary.BigEndian.Uint32(b[28:]) {
		return bad("its header")
	}
	salt := string(b[16:24])
	broken := -1
	for at, n := headerSize, 0; at+frameHeader+page <= len(b); at, n = at+frameHeader+page, n+1 {
		f := b[at : at+frameHeader+page]
		same, commits := string(f[8:16]) == salt, binary.BigEndian.Uint32(f[4:]) != 0
		if broken >= 0 {
			if same && commits {
				return bad(fmt.Sprintf("frame %d, with committed ones behind it", broken))
			}
			continue
		}
		if same {
			s0, s1 = walSum(order, s0, s1, f[:8])
			s0, s1 = walSum(order, s0, s1, f[frameHeader:])
			same = s0 == binary.BigEndian.Uint32(f[16:]) && s1 == binary.BigEndian.Uint32(f[20:])
		}
		if !same {
			broken = n
		}
	}
	return nil
}

// walSum is the log's running checksum over pairs of 32-bit words.
func walSum(order binary.ByteOrder, s0, s1 uint32, b []byte) (uint32, uint32) {
	for i := 0; i+8 <= len(b); i += 8 {
		s0 += order.Uint32(b[i:]) + s1
		s1 += order.Uint32(b[i+4:]) + s0
	}
	return s0, s1
}
