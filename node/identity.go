//go:build linux

package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/exeq/exeq"
)

// identity is who the node is: its key, this boot, and this run's burn list.
type identity struct {
	key      ed25519.PrivateKey
	audience exeq.Audience
}

func (i *identity) public() ed25519.PublicKey { return i.key.Public().(ed25519.PublicKey) }

// sign completes an enclosure.
func (i *identity) sign(e exeq.Enclosure) (*exeq.Enclosure, error) {
	e.Version, e.Audience, e.Key = 1, i.audience, i.audience.Node
	msg, err := e.Signable()
	if err != nil {
		return nil, err
	}
	e.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(i.key, msg))
	return &e, nil
}

const keyHead = "exeq-node-key v1 "

// openIdentity reads the node's key from its state directory, or makes it, and
// begins a new epoch.
func openIdentity(state string) (*identity, error) {
	key, err := readKey(filepath.Join(state, "node.key"))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(state)
	}
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	var epoch [16]byte
	rand.Read(epoch[:])
	return &identity{key, exeq.Audience{
		Node: exeq.KeyID(key.Public().(ed25519.PublicKey)), BootID: strings.TrimSpace(string(boot)), Epoch: hex.EncodeToString(epoch[:]),
	}}, nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	f, err := openOwned(path, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can read it (mode %#o)", path, st.Mode&0o7777)
	}
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(string(b), keyHead)
	text, whole := strings.CutSuffix(text, "\n")
	seed, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || !whole || err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: damaged", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// makeKey makes the key durable before it is used.
func makeKey(state string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(state, "new-key-") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(keyHead + base64.StdEncoding.EncodeToString(key.Seed()) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(state, "node.key")); err != nil {
		return nil, err
	}
	d, err := os.Open(state)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return key, d.Sync()
}
