package standalone

import (
	"context"
	"errors"
	"fmt"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// RotateKey replaces the key of role issuer or node and gives the ids of the
// old key and the new. It is refused while anything runs, since what runs goes
// on signing with the key that it started with. The installation is to be
// closed afterwards: it still has the old key.
func (in *Installation) RotateKey(ctx context.Context, role, event string) (was, is string, err error) {
	switch role {
	case exeq.RoleIssuer, exeq.RoleNode:
	case exeq.RoleLog, exeq.RolePromise:
		return "", "", fmt.Errorf("the %s key is part of the log's identity, which a trust file names once: a new one is a new installation (exeq init --state DIR)", role)
	default:
		return "", "", fmt.Errorf("there is no role %q: issuer and node keys can be rotated", role)
	}
	running, err := in.Store.Running(ctx)
	if err != nil {
		return "", "", err
	}
	if len(running) > 0 {
		return "", "", fmt.Errorf("execution %s runs and signs with the present keys: wait for it or end it (exeq revoke %[1]s)", running[0].ID)
	}
	was = in.Keys.Signer(role).KeyID()
	next, err := keyring.Rotate(in.Dir, role, event, func(e exeq.Entry) error {
		_, err := in.Store.Record(ctx, e)
		return err
	})
	if err != nil {
		return "", "", err
	}
	if is = next.Signer(role).KeyID(); is == was {
		return "", "", errors.New("the key is the same as before")
	}
	return was, is, in.LeaveDrainer(ctx)
}
