//go:build linux

package node

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/enforce/bpf"
)

// life is what a scope lives by here and now.
type life struct {
	files  []bpf.File
	trees  []bpf.Tree
	faults []string
}

func (l *life) same(o *life) bool {
	return o != nil && slices.Equal(l.files, o.files) && slices.Equal(l.trees, o.trees) && slices.Equal(l.faults, o.faults)
}

// live finds what a statement names. What is not as it says is a fault, and is
// not lived by.
func (s *scopes) live(b *exeq.ScopeBody) (*life, error) {
	l := &life{}
	fault := func(path string, err error) {
		l.faults = append(l.faults, exeq.EncodeBytes(fmt.Sprintf("%s: %v", exeq.Readable(path), err)))
	}
	for _, p := range b.Programs {
		path, err := exeq.DecodeBytes(p.Path)
		var f *os.File
		if err == nil {
			f, err = s.n.openRegular(path, false)
		}
		if err != nil {
			fault(p.Path, err)
			continue
		}
		file, digest, err := s.n.hash(f)
		f.Close()
		switch {
		case err != nil:
			fault(p.Path, err)
		case digest != p.SHA256:
			fault(p.Path, fmt.Errorf("its SHA-256 is %s, the statement says %s", digest, p.SHA256))
		default:
			l.files = append(l.files, file)
		}
	}
	for _, p := range b.Trees {
		path, err := exeq.DecodeBytes(p)
		var d *os.File
		if err == nil {
			d, err = s.n.openTree(path)
		}
		if err != nil {
			fault(p, err)
			continue
		}
		t, err := s.n.gate.IdentifyTree(d)
		d.Close()
		if err != nil {
			return nil, err
		}
		l.trees = append(l.trees, t)
	}
	return l, nil
}

// itself is the node's own program.
func (n *Node) itself() (bpf.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return bpf.File{}, err
	}
	defer f.Close()
	file, _, err := n.hash(f)
	return file, err
}

// openTree opens a directory of which each one on the way to it is root's alone
// to change. What lies below it the kernel looks at, each time.
func (n *Node) openTree(path string) (*os.File, error) {
	fd, err := n.walk(path, false, func(at string, st *unix.Stat_t) error {
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return fmt.Errorf("%s: %w", at, unix.ENOTDIR)
		case st.Uid != 0 || st.Mode&0o022 != 0:
			return fmt.Errorf("%s: not root's alone to change (owner %d, mode %#o)", at, st.Uid, st.Mode&0o7777)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
