package standalone

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Revocations travel as signed files in the state directory: whoever can write
// there and cannot sign can revoke nothing. The supervisor looks often enough
// that a person does not wait, and a lost file only means that it is asked for
// again.
const lookForRevocation = exeq.RevocationDelay / 2

func revocationFile(state, id string) string {
	return filepath.Join(state, "revoked", filepath.Base(id)+".json")
}

// Revoke signs the end of an execution and puts it where its supervisor looks.
// It gives what was signed, for whoever else holds the execution.
func (in *Installation) Revoke(ctx context.Context, id, reason string) (*exeq.Revocation, error) {
	r, err := in.issuer.Revoke(id, reason, exeq.At(time.Now()))
	if err != nil {
		return nil, err
	}
	return &r, in.deliver(ctx, &r)
}

func (in *Installation) deliver(ctx context.Context, r *exeq.Revocation) error {
	b, err := canon.Marshal(r)
	if err != nil {
		return err
	}
	name := revocationFile(in.Dir, r.Permit)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	return in.Wake(ctx, r.Permit)
}

// Wake lets the supervisor of a stopped execution (^Z) go on, so that it sees
// the revocation before anything else does. One that was about to stop when it
// was woken stops after all: whoever waits for the end wakes it again.
func (in *Installation) Wake(ctx context.Context, id string) error {
	list, err := in.Store.Running(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.ID == id && s.PID > 0 {
			return wakeProcess(s.PID)
		}
	}
	return nil
}

// Revocations implements exeq.Governor.Revocations.
func (in *Installation) Revocations(ctx context.Context, id string) <-chan exeq.Revocation {
	ch := make(chan exeq.Revocation, 1)
	go func() {
		t := time.NewTicker(lookForRevocation)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-in.closed:
				return
			case <-t.C:
			}
			b, err := os.ReadFile(revocationFile(in.Dir, id))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			r, err := readRevocation(b, err, id, in.Keys.Public(exeq.RoleIssuer))
			if err != nil {
				in.Log.Warn("a revocation was not believed", "execution", id, "err", err)
				continue
			}
			ch <- *r
			return
		}
	}()
	return ch
}

// Revocation is what was issued against an execution; nil: nothing.
func (in *Installation) Revocation(id string) (*exeq.Revocation, error) {
	b, err := os.ReadFile(revocationFile(in.Dir, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return readRevocation(b, err, id, in.Keys.Public(exeq.RoleIssuer))
}

func readRevocation(b []byte, err error, id string, issuer ed25519.PublicKey) (*exeq.Revocation, error) {
	if err != nil {
		return nil, err
	}
	var r exeq.Revocation
	if err := canon.Decode(b, &r, canon.Limits{Bytes: exeq.MaxLeafBytes, Depth: 2}); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	if r.Permit != id || r.Key != exeq.KeyID(issuer) {
		return nil, errors.New("revocation: of another permit or by another key")
	}
	msg, err := r.Signable()
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(r.Signature)
	if err != nil || !ed25519.Verify(issuer, msg, sig) {
		return nil, errors.New("revocation: the signature does not verify")
	}
	return &r, nil
}

// actor gives subjects opaque ids: constant within an installation, and
// nothing that can be guessed and confirmed outside it.
func (in *Installation) actor(e exeq.Entity) string {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // two strings always marshal
	}
	return exeq.Commit("actor", e.Type, in.salt, b).String()[:32]
}
