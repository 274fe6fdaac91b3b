package keyring

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
)

func made(t *testing.T) (string, *Ring) {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	r, err := Create(state)
	if err != nil {
		t.Fatal(err)
	}
	return state, r
}

func TestCreateOpen(t *testing.T) {
	state, r := made(t)
	if _, err := Create(state); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	again, err := Open(state)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, role := range Roles {
		msg := []byte("message of " + role)
		if !ed25519.Verify(again.Public(role), msg, r.Signer(role).Sign(msg)) {
			t.Errorf("%s: another key after opening", role)
		}
		if exeq.KeyID(r.Public(role)) != again.Signer(role).KeyID() {
			t.Errorf("%s: another key id", role)
		}
		ids[r.Signer(role).KeyID()] = true
		info, err := os.Stat(filepath.Join(state, "keys", role+".key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", role, info.Mode(), err)
		}
	}
	if len(ids) != len(Roles) {
		t.Errorf("%d keys for %d roles", len(ids), len(Roles))
	}
	if o := r.Origin(); o != again.Origin() || len(o) != len("exeq.local/")+16 {
		t.Errorf("origin %q, then %q", o, again.Origin())
	}
	_, other := made(t)
	if other.Origin() == r.Origin() {
		t.Error("two installations have one origin")
	}
}

func TestNotes(t *testing.T) {
	_, r := made(t)
	for role, name := range map[string]string{exeq.RoleLog: r.Origin(), exeq.RolePromise: r.Origin() + "/promise"} {
		b, err := note.Sign(&note.Note{Text: "text\n"}, r.NoteSigner(role))
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open(b, note.VerifierList(r.NoteVerifier(role)))
		if err != nil || n.Sigs[0].Name != name {
			t.Errorf("%s: %v", role, err)
		}
		if _, err := note.Open(b, r.NoteVerifiers(role)); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// TestNoKeys: nothing there is told apart from something broken.
func TestNoKeys(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// TestHalfWritten: every file missing, empty, cut, flipped or swapped is damage.
func TestHalfWritten(t *testing.T) {
	state, _ := made(t)
	_, other := made(t)
	dir := filepath.Join(state, "keys")
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2*len(Roles)+1 {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(other.dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string][]byte{"empty": {}, "cut": good[:len(good)/2], "longer": append(slices.Clone(good), '\n'), "huge": make([]byte, maxKeyFile+1), "another's": foreign}
		for i := range good {
			b := slices.Clone(good)
			b[i] ^= 1 << (i % 8)
			bad[fmt.Sprintf("flipped at %d", i)] = b
		}
		for what, b := range bad {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if r, err := Open(state); !errors.Is(err, ErrDamaged) || r != nil {
				t.Errorf("%s %s: %v", f.Name(), what, err)
			} else if strings.HasSuffix(f.Name(), ".key") && len(good) > 60 && strings.Contains(err.Error(), string(good[30:60])) {
				t.Errorf("%s %s: the error holds the key", f.Name(), what)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(state); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s missing: %v", f.Name(), err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(state); err != nil {
		t.Errorf("whole again: %v", err)
	}
}

// TestOthersCanRead: a key that others could read or replace is refused.
func TestOthersCanRead(t *testing.T) {
	state, _ := made(t)
	path := filepath.Join(state, "keys", "issuer.key")
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(state); err == nil {
			t.Errorf("opened with mode %v", mode)
		}
	}
	if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(state); err == nil {
		t.Error("opened through a symbolic link")
	}
}

// TestFirstUseAtOnce: many that start at once agree on one key set.
func TestFirstUseAtOnce(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	origins := make([]string, 16)
	made := make([]bool, len(origins))
	var wg sync.WaitGroup
	for i := range origins {
		wg.Go(func() {
			r, created, err := OpenOrCreate(state)
			if err != nil {
				t.Error(err)
				return
			}
			origins[i], made[i] = r.Origin(), created
		})
	}
	wg.Wait()
	first := 0
	for i, o := range origins {
		if o != origins[0] {
			t.Errorf("origins %q and %q", o, origins[0])
		}
		if made[i] {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d created", first)
	}
}

// TestKilledCreate: what a run that was killed while creating left behind is
// replaced.
func TestKilledCreate(t *testing.T) {
	state := t.TempDir()
	left := filepath.Join(state, "keys.new")
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "issuer.key"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, created, err := OpenOrCreate(state); err != nil || !created {
		t.Fatal(created, err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half-written keys are still there: %v", err)
	}
}

// TestPrinting: a ring that lands in a log shows no key.
func TestPrinting(t *testing.T) {
	_, r := made(t)
	secret := r.keys[exeq.RoleIssuer]
	for _, v := range []any{r, r.Signer(exeq.RoleIssuer), r.NoteSigner(exeq.RoleLog)} {
		for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
			out := fmt.Sprintf(f, v)
			if strings.Contains(out, fmt.Sprint([]byte(secret[:4]))[1:8]) || len(out) > 120 {
				t.Errorf("%s of %T: %s", f, v, out)
			}
		}
	}
}

// TestOpenSSLReadsKeys: the files are what other tools expect.
func TestOpenSSLReadsKeys(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	state, _ := made(t)
	for _, role := range Roles {
		base := filepath.Join(state, "keys", role)
		pub, err := exec.Command(openssl, "pkey", "-in", base+".key", "-pubout").Output()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(base + ".pub"); err != nil || string(b) != string(pub) {
			t.Errorf("%s: openssl derives another public key", role)
		}
	}
}

func TestKeyLeaves(t *testing.T) {
	_, r := made(t)
	es, err := r.Leaves()
	if err != nil || len(es) != len(Roles) {
		t.Fatal(len(es), err)
	}
	for i, e := range es {
		l, err := exeq.ParseLeaf(e.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if l.Kind != exeq.KindKey || l.Body.Role != Roles[i] || l.Body.Event != EventAdd || l.Key != r.Signer(exeq.RoleIssuer).KeyID() {
			t.Errorf("%+v", l)
		}
	}
	if _, err := r.NewKeyLeaf(exeq.RoleNode, "borrow"); err == nil {
		t.Error("an unknown event")
	}
}
