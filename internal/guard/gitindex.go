package guard

import (
	"bytes"
	"encoding/binary"
	"strings"
)

func escapeGlob(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

// linksOf reads an index of version 2 to 4; see git's gitformat-index.
func linksOf(b []byte, digest int) (out []string) {
	if len(b) < 12 || string(b[:4]) != "DIRC" {
		return nil
	}
	version, count := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	at := 12
	var previous []byte
	for range count {
		start, head := at, 40+digest+2
		if at+head > len(b) {
			return out
		}
		mode, flags := binary.BigEndian.Uint32(b[at+24:]), binary.BigEndian.Uint16(b[at+head-2:])
		at += head
		if version >= 3 && flags&0x4000 != 0 {
			at += 2
		}
		var name []byte
		if version == 4 {
			strip, n := offset(b[min(at, len(b)):])
			if n == 0 || strip > len(previous) {
				return out
			}
			at += n
			name = append(name, previous[:len(previous)-strip]...)
		}
		if at > len(b) {
			return out
		}
		end := bytes.IndexByte(b[at:], 0)
		if end < 0 {
			return out
		}
		name = append(name, b[at:at+end]...)
		at += end + 1
		if version < 4 {
			at = start + (at-1-start+8)&^7
		}
		previous = name
		if mode&0o170000 == 0o160000 && len(name) > 0 {
			out = append(out, string(name))
		}
	}
	return out
}

// offset reads git's variable-length number; n is 0 where there is none.
func offset(b []byte) (v, n int) {
	for n < len(b) && n < 5 {
		c := b[n]
		n++
		v |= int(c & 0x7f)
		if c&0x80 == 0 {
			return v, n
		}
		v = (v + 1) << 7
	}
	return 0, 0
}
