// Package standalone assembles the parts of one installation on one machine,
// without a server: state directory, keys, store, policy, and the Governor
// over them. It holds no logic of the flow.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/attest"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/internal/guard"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/permit"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/record"
)

// Options of Open.
type Options struct {
	Dir    string // state directory, absolute; made on first use
	Policy string // policy directory or file; empty: the state's own
	// Set, where given, is the policy set whatever Policy says (learn).
	Set *policy.Set
	// Ahead has the policy set read while keys and store are opened, for
	// callers that will decide.
	Ahead bool
	// Inherited is the store's lock, of a process that left it to this one.
	Inherited *os.File
	// Say passes one line to the person at the terminal.
	Say func(string)
	Log *slog.Logger // nil discards
}

// Installation is one open state directory.
type Installation struct {
	Dir     string
	Created bool // by this Open
	Keys    *keyring.Ring
	Store   *record.Store
	Log     *slog.Logger

	options  Options
	policies *policies
	issuer   *permit.Issuer
	audience exeq.Audience
	salt     [16]byte
	closed   chan struct{}
	drainers atomic.Int32 // that this process started and that still run
}

// Open opens the installation and creates it on first use: keys, log, starter
// policy. What a killed run left behind is put right and said.
func Open(ctx context.Context, o Options) (*Installation, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	in := &Installation{Dir: o.Dir, Log: o.Log, options: o, closed: make(chan struct{})}
	if err := in.open(ctx); err != nil {
		in.Close()
		if errors.Is(err, record.ErrDamaged) || errors.Is(err, keyring.ErrDamaged) {
			err = fmt.Errorf("%w\n%s", err, wayOut)
		}
		return nil, fmt.Errorf("state %s: %w", o.Dir, err)
	}
	return in, nil
}

// collectLess is for a process that issues permits by the thousand. Of what a
// permit is made nothing stays, and little lives: at Go's usual 100 % some 8 MB
// would be collected eighty times a second, each time with every waiting
// caller's stack to look through. Whoever sets GOGC is obeyed.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// wayOut is what a person can do about a damaged state.
const wayOut = "exeq: put back what is damaged from a copy, and the next start checks all of it again; or begin a new installation with --state DIR and keep this one as evidence"

func (in *Installation) open(ctx context.Context) error {
	if !filepath.IsAbs(in.Dir) { // whoever drains works elsewhere
		return errors.New("not an absolute path")
	}
	if err := privateDir(in.Dir); err != nil {
		return err
	}
	in.policies = &policies{path: in.PolicyPath(), fixed: in.options.Set, activate: in.activate, say: in.options.Say}
	if in.options.Ahead {
		in.policies.readAhead()
	}
	var err error
	if in.Keys, in.Created, err = keyring.OpenOrCreate(in.Dir); err != nil {
		return err
	}
	if in.salt, err = saltFile(filepath.Join(in.Dir, "keys", "actor.salt")); err != nil {
		return err
	}
	if in.Store, err = record.Open(ctx, record.Config{Dir: in.Dir, Keys: in.Keys, Log: in.Log, Inherited: in.options.Inherited, Busy: collectLess}); err != nil {
		return err
	}
	if err := in.firstUse(ctx); err != nil {
		return err
	}
	found, err := in.Store.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	for _, line := range found.Findings() {
		in.options.Say("recovered: " + line)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("boot id: %w", err)
	}
	in.audience = exeq.Audience{
		Node:   in.Keys.Signer(exeq.RoleNode).KeyID(),
		BootID: strings.TrimSpace(string(boot)),
		Epoch:  in.Store.Epoch(),
	}
	in.issuer, err = permit.NewIssuer(permit.IssuerConfig{
		Key: in.Keys.Signer(exeq.RoleIssuer), Audience: in.audience, Checkpoint: in.Store.Latest,
	})
	return err
}

// Governor is the flow over this installation's parts. Standalone, the issuing
// and the admitting side are one process with two keys; they still only
// believe signatures.
func (in *Installation) Governor(e exeq.Enforcer) (*exeq.Governor, error) {
	admitter, err := permit.NewAdmitter(permit.AdmitterConfig{
		Issuer: in.Keys.Public(exeq.RoleIssuer), Promise: in.Keys.NoteVerifier(exeq.RolePromise),
		Audience: in.audience, Tier: e.Tier(), Burner: in.Store,
	})
	if err != nil {
		return nil, err
	}
	return &exeq.Governor{
		Policies: in.policies, Issuer: in.issuer, Recorder: in.Store, Admitter: admitter,
		Enforcer: e, Appraiser: attest.Appraiser{},
		IssuerKey: in.Keys.Signer(exeq.RoleIssuer), NodeKey: in.Keys.Signer(exeq.RoleNode),
		Actor: in.actor, Revocations: in.Revocations, Within: in.keep,
		Log: in.Log, Tick: exeq.DefaultTick, Lease: exeq.DefaultLease,
	}, nil
}

// Close ends the installation's use; what is not yet in the log stays for the
// next drainer.
func (in *Installation) Close() error {
	close(in.closed)
	if in.Store == nil {
		return nil
	}
	return in.Store.Close()
}

// PolicyPath is where the policy set is read from.
func (in *Installation) PolicyPath() string {
	if in.options.Policy != "" {
		return in.options.Policy
	}
	return filepath.Join(in.Dir, "policy")
}

// Hidden are the paths that must not exist inside an execution, with what they
// link to.
func (in *Installation) Hidden() ([]string, error) {
	obeyed, err := in.obeyed()
	return append(obeyed, otherStates()...), err
}

// obeyed are the state and what the policy set is read from: whoever could write
// one of its files, wherever it lies, would decide.
func (in *Installation) obeyed() ([]string, error) {
	p, err := filepath.Abs(in.PolicyPath())
	if err != nil {
		return []string{in.Dir}, err
	}
	links, err := policy.Links(p)
	return append([]string{in.Dir, p}, links...), err
}

// Scratch is where copies of approved programs are kept; enforcement follows no
// link to it.
func (in *Installation) Scratch() string { return Scratch(in.Dir) }

// Scratch is Installation.Scratch of the state directory.
func Scratch(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return filepath.Join(dir, "programs")
}

// Protect narrows compiled rights by what is seen of the place where the
// execution works, and as every execution's are.
func (in *Installation) Protect(seen *guard.Sight) func(*exeq.Rights) (*exeq.Rights, error) {
	return func(r *exeq.Rights) (*exeq.Rights, error) {
		r, err := seen.Narrow(r)
		if err != nil {
			return nil, err
		}
		return in.keep(r)
	}
}

// keep takes the right to replace a symbolic link that leads to state or policy
// (what they lead to is hidden), and what protect does.
func (in *Installation) keep(r *exeq.Rights) (*exeq.Rights, error) {
	obeyed, err := in.obeyed()
	if err != nil {
		return nil, err
	}
	return in.protect(guard.Pin(r, obeyed))
}

// protect takes the right to write Exeq's own binary, wherever it lies.
func (in *Installation) protect(r *exeq.Rights) (*exeq.Rights, error) {
	started, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("where Exeq's own binary lies cannot be told, so it cannot be protected; is /proc mounted? %w", err)
	}
	own, err := ownBinary(started, "/proc/self/exe")
	if err != nil {
		return nil, err
	}
	for _, p := range own {
		r = r.Fix(exeq.EncodeBytes(p))
	}
	return r, nil
}

// ownBinary gives the paths of Exeq's binary: where it was started, which is
// what the next caller starts, and where the kernel says that it is now. One
// that was replaced or removed keeps its name protected: whoever may write
// there puts in place what runs next as Exeq.
func ownBinary(started, link string) ([]string, error) {
	names := []string{started}
	now, err := os.Readlink(link)
	switch {
	case err == nil:
		if !sameFile(now, link) {
			now = strings.TrimSuffix(now, " (deleted)")
		}
		names = append(names, now)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("where Exeq's own binary lies cannot be told, so it cannot be protected: %w", err)
	}
	var out []string
	for _, p := range names {
		if !filepath.IsAbs(p) {
			return nil, fmt.Errorf("Exeq's own binary lies at %q, outside of this root directory, and cannot be protected: start it from a path inside", p)
		}
		real, err := filepath.EvalSymlinks(p)
		if errors.Is(err, fs.ErrNotExist) {
			// Gone, maybe to come back: the name in the directory that is there.
			if real, err = filepath.EvalSymlinks(filepath.Dir(p)); err == nil {
				real = filepath.Join(real, filepath.Base(p))
			} else if errors.Is(err, fs.ErrNotExist) {
				real, err = filepath.Clean(p), nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("Exeq's own binary %q cannot be protected: %w", p, err)
		}
		if !slices.Contains(out, real) {
			out = append(out, real)
		}
	}
	return out, nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// firstUse records the keys and writes the starter policy, where they are not.
func (in *Installation) firstUse(ctx context.Context) error {
	if in.Store.Empty() {
		leaves, err := in.Keys.Leaves()
		if err != nil {
			return err
		}
		if _, err := in.Store.RecordFirst(ctx, leaves...); err != nil {
			return err
		}
	}
	dir := filepath.Join(in.Dir, "policy")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(in.Dir, "policy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for name, text := range policy.Starter().Files {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// activate puts a policy set on record before it decides anything. A set that
// is in force at this path already is not recorded again.
func (in *Installation) activate(ctx context.Context, set *policy.Set) error {
	at := exeq.LeafHash([]byte("active at " + in.PolicyPath()))
	digest := set.PolicySet()
	if b, err := in.Store.Blob(ctx, at); err == nil && string(b) == digest.String() {
		return nil
	}
	source, err := canon.Marshal(set.Source())
	if err != nil {
		return err
	}
	if err := in.Store.PutBlobAs(ctx, digest, source); err != nil {
		return err
	}
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindPolicy, Body: exeq.LeafBody{Event: "activate"}},
		map[string]any{"policySet": digest}, in.Keys.Signer(exeq.RoleIssuer))
	if err != nil {
		return err
	}
	_, err = in.Store.RecordOnce(ctx, at, []byte(digest.String()), e)
	return err
}

// privateDir makes dir for this user alone and refuses one that others can
// write or that belongs to someone else.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("is not a directory")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to it (mode %o): chmod 700 it, or name another with --state", info.Mode().Perm())
	}
	return osfile.OwnedByUs(info)
}
