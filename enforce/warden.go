package enforce

import (
	"context"
	"net/netip"
	"os"

	"github.com/exeq/exeq"
)

// Warden holds an execution of the tier rootless from above it: a daemon that
// has the kernel decide beside this process, and a lease of its own. It serves
// one execution, whose permit it has admitted by the time of Launch.
//
// What fails here ends the execution. Methods other than Tier may be called
// concurrently.
type Warden interface {
	// Tier is what this tier and the warden give together.
	Tier() exeq.Tier
	// Enclose takes process 1 and the command, which waits to execute, by their
	// pidfds. When it returns nothing executes there but what is approved, and
	// the warden's lease runs. The proxy is the one address that the execution
	// may connect to by itself; shut are paths (EncodeBytes) that nothing there may
	// open, whatever the rights say.
	Enclose(ctx context.Context, init, command int, proxy netip.AddrPort, shut []string) (*exeq.Enclosure, error)
	// Approve lets the file be executed in the state that it is in, if the
	// warden finds these bytes in it; it stands for what is at path
	// (EncodeBytes) and was decided on. Mapped: mapped executable, and not
	// executed; a warden below the tier kernel does not hold that.
	Approve(ctx context.Context, path string, digest exeq.Digest, f *os.File, mapped bool) error
	// Withdraw takes back whatever was approved as these bytes at path: it is not
	// executed or mapped any more. What runs goes on.
	Withdraw(ctx context.Context, path string, digest exeq.Digest) error
	// Challenge is what the next renewal answers; Renew brings it.
	Challenge(ctx context.Context) (string, error)
	Renew(ctx context.Context, n exeq.Renewal) error
	// Denied takes what the warden refused, as it told with the last answers of
	// Challenge and Over.
	Denied() []exeq.Activity
	// Hold stops every process and suspends the lease, Resume goes on.
	Hold(ctx context.Context) error
	Resume(ctx context.Context) error
	// Over is called once nothing is alive, and says why the warden ended it: nil
	// if it did not, an exeq.ErrRevoked if the issuer had signed so.
	Over(ctx context.Context) (ended, err error)
}
