package keyring

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/exeq/exeq"
)

// recorder keeps key leaves; it fails at the n-th.
type recorder struct {
	leaves []exeq.Leaf
	fail   int
}

func (r *recorder) record(e exeq.Entry) error {
	if r.fail--; r.fail == 0 {
		return errors.New("disk full")
	}
	r.leaves = append(r.leaves, e.Leaf)
	return nil
}

func TestRotate(t *testing.T) {
	for _, role := range []string{exeq.RoleIssuer, exeq.RolePromise, exeq.RoleNode} {
		state, old := made(t)
		var rec recorder
		r, err := Rotate(state, role, EventRetire, rec.record)
		if err != nil {
			t.Fatal(err)
		}
		if r.Signer(role).KeyID() == old.Signer(role).KeyID() {
			t.Errorf("%s: the key is the same", role)
		}
		for _, other := range Roles {
			if other != role && !r.Public(other).Equal(old.Public(other)) {
				t.Errorf("rotating %s changed %s", role, other)
			}
		}
		if len(rec.leaves) != 2 || rec.leaves[0].Body.Event != EventAdd || rec.leaves[1].Body.Event != EventRetire {
			t.Fatalf("%+v", rec.leaves)
		}
		if rec.leaves[0].Key != old.Signer(exeq.RoleIssuer).KeyID() || rec.leaves[1].Key != r.Signer(exeq.RoleIssuer).KeyID() {
			t.Errorf("%s: the leaves are not signed by the issuers in force", role)
		}
		if k := r.Known(role); len(k) != 2 || !k[0].Equal(old.Public(role)) || !k[1].Equal(r.Public(role)) {
			t.Errorf("%s: %d known keys", role, len(k))
		}
		if _, err := Rotate(state, role, EventCompromised, rec.record); err != nil {
			t.Fatal(err)
		}
		if r, err = Open(state); err != nil || len(r.Known(role)) != 3 {
			t.Errorf("%s: after two rotations: %v", role, err)
		}
	}
}

func TestRotateRefuses(t *testing.T) {
	state, _ := made(t)
	for _, c := range [][2]string{{exeq.RoleLog, EventRetire}, {exeq.RoleApprover, EventRetire}, {exeq.RoleNode, EventAdd}} {
		if _, err := Rotate(state, c[0], c[1], func(exeq.Entry) error { t.Error("recorded"); return nil }); err == nil {
			t.Errorf("rotated %v", c)
		}
	}
}

// TestRotateFails: a rotation whose leaves are not recorded, or that is killed
// between its files, leaves keys that open, and is ended by the next one.
func TestRotateFails(t *testing.T) {
	role := exeq.RoleNode
	for at := 1; at <= 2; at++ {
		state, old := made(t)
		rec := recorder{fail: at}
		if _, err := Rotate(state, role, EventRetire, rec.record); err == nil {
			t.Fatal("no error")
		}
		r, err := Open(state)
		if err != nil {
			t.Fatal(err)
		}
		if switched := !r.Public(role).Equal(old.Public(role)); switched != (at == 2) {
			t.Errorf("failed at leaf %d: switched %v", at, switched)
		}
		r, err = Rotate(state, role, EventRetire, rec.record)
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.leaves) != 2 || rec.leaves[0].Body.PublicKey == rec.leaves[1].Body.PublicKey || len(r.Known(role)) != 2 {
			t.Errorf("failed at leaf %d: %+v, %d keys", at, rec.leaves, len(r.Known(role)))
		}
	}

	// Killed between the two files of the switch.
	state, old := made(t)
	oldKey, err := os.ReadFile(filepath.Join(state, "keys", role+".key"))
	if err != nil {
		t.Fatal(err)
	}
	rec := recorder{fail: 2}
	if _, err := Rotate(state, role, EventRetire, rec.record); err == nil {
		t.Fatal("no error")
	}
	if err := os.WriteFile(filepath.Join(state, "keys", role+".key"), oldKey, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(state)
	if err != nil || !r.Public(role).Equal(old.Public(role)) {
		t.Fatalf("between the files: %v", err)
	}
	if r, err = Rotate(state, role, EventRetire, rec.record); err != nil || r.Public(role).Equal(old.Public(role)) {
		t.Errorf("ended: %v", err)
	}
}
