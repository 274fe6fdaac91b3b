//go:build !linux

package enforce

import (
	"context"
	"fmt"

	"github.com/exeq/exeq"
)

// Enforcer does not exist on this operating system.
type Enforcer struct{}

// Prepare refuses: there is nothing here to enforce with.
func Prepare(Options) (*Enforcer, error) {
	return nil, fmt.Errorf("%w: enforcement needs Linux", exeq.ErrEnforce)
}

// Close does nothing.
func (*Enforcer) Close() error { return nil }

// Tier implements exeq.Enforcer.
func (*Enforcer) Tier() exeq.Tier { return exeq.TierNone }

// Launch implements exeq.Enforcer.
func (*Enforcer) Launch(context.Context, *exeq.Launch) (exeq.Running, error) {
	return nil, fmt.Errorf("%w: enforcement needs Linux", exeq.ErrEnforce)
}
