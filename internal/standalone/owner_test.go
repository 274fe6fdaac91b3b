//go:build unix

package standalone

import (
	"os"
	"syscall"
	"testing"
)

// TestTemporaryOfTheOwner: where root works in somebody else's directory, the
// execution runs as them and its temporary directory is theirs.
func TestTemporaryOfTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs an execution as somebody else")
	}
	dir := t.TempDir()
	const owner = 65534
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	p, cleanup, err := NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	info, err := os.Stat(p.Tmp)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != owner || st.Gid != owner {
		t.Errorf("owned by %d:%d", st.Uid, st.Gid)
	}
}
