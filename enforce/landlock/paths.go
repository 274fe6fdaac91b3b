//go:build linux

package landlock

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// cell is one cut point, its access reduced to what Landlock may grant.
type cell struct {
	path      string
	at, under Access
}

type cells struct {
	sorted []cell // parents before children
	byPath map[string]cell
}

func (b *builder) cells(r *exeq.Rights) (cells, error) {
	cs := cells{byPath: make(map[string]cell, len(r.Cells))}
	for _, c := range r.Cells {
		raw, err := exeq.DecodeBytes(c.Path)
		if err != nil {
			return cs, fmt.Errorf("landlock: %w", err)
		}
		n := cell{raw, b.o.access(c.At), b.o.access(c.Under)}
		cs.sorted = append(cs.sorted, n)
		cs.byPath[raw] = n
	}
	// Rights are sorted as strings, in which "/a-b" stands between "/a" and
	// "/a/b".
	slices.SortFunc(cs.sorted, func(a, b cell) int { return comparePaths(a.path, b.path) })
	return cs, nil
}

// under gives what holds for an entry of directory p that is no cut point.
func (cs cells) under(p string) Access {
	for ; ; p = path.Dir(p) {
		if c, ok := cs.byPath[p]; ok || p == "/" {
			return c.under
		}
	}
}

// pin finds the directories that must not be renamed or removed. A mask moves
// along when a directory above it is renamed, and then nothing masks the path
// that it was for; and a directory may itself be forbidden to be written while
// its parent is writable.
func (b *builder) pin(cs cells) {
	pins := map[string]bool{}
	covered := map[string]bool{}
	above := func(p string) {
		for q := path.Dir(p); q != "/"; q = path.Dir(q) {
			if cs.under(path.Dir(q))&Write != 0 {
				pins[q] = true
			}
		}
	}
	for _, m := range b.rep.Masks {
		covered[m.Path] = true
		if m.Over&Write != 0 {
			above(m.Path)
		}
	}
	for _, m := range b.rep.Missing {
		covered[m.Path] = true
		if m.Over&Write != 0 {
			above(m.Path)
		}
	}
	for _, c := range cs.sorted {
		if c.path != "/" && c.at&Write == 0 && c.under&Write != 0 && cs.under(path.Dir(c.path))&Write != 0 {
			pins[c.path] = true
		}
	}
	for p := range pins {
		if covered[p] {
			continue
		}
		if fd, st, err := openPath(p); err == nil {
			unix.Close(fd)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				b.rep.Pins = append(b.rep.Pins, p)
			}
		}
	}
	slices.SortFunc(b.rep.Pins, comparePaths)
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// comparePaths orders paths component by component.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// pseudoTypes are file systems whose files are the kernel's switches. Writing
// there is enforcement's business alone.
var pseudoTypes = []string{
	"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "bpf",
	"pstore", "efivarfs", "fusectl", "binfmt_misc", "selinuxfs", "smackfs", "apparmorfs", "resctrl", "xenfs",
}

func pseudoMagic(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.AAFS_MAGIC,
		unix.RDTGROUP_SUPER_MAGIC, unix.XENFS_SUPER_MAGIC:
		return true
	}
	return false
}

// pseudoMounts reads the mount points of pseudo file systems from a mountinfo
// file.
func pseudoMounts(mountinfo string) ([]string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("landlock: mount table: %w", err)
	}
	defer f.Close()
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			return nil, fmt.Errorf("landlock: mount table: cannot read line %q", lines.Text())
		}
		if slices.Contains(pseudoTypes, kind[0]) {
			out = append(out, unescape(fields[4]))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("landlock: mount table: %w", err)
	}
	return out, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

func (b *builder) isPseudo(p string) bool {
	for _, m := range b.pseudo {
		if within(p, m) {
			return true
		}
	}
	return false
}

func (b *builder) pseudoBelow(p string) bool {
	for _, m := range b.pseudo {
		if m != p && within(m, p) {
			return true
		}
	}
	return false
}
