//go:build linux

package peers

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os/exec"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
	"github.com/exeq/exeq/internal/prooftest"
)

// issued is a permit with what strangers need to check it.
type issued struct {
	key      string // file: the issuer's public key, PEM
	envelope string // file: the DSSE envelope
	action   string // file: the bytes whose SHA-256 is the ActionDigest
	pae, sig string // files: what is signed, and the signature
}

func issue(t *testing.T) issued {
	t.Helper()
	w := prooftest.New(t)
	p := w.Plan()
	dir := t.TempDir()
	der, err := x509.MarshalPKIXPublicKey(w.Ring.Public(exeq.RoleIssuer))
	if err != nil {
		t.Fatal(err)
	}
	// The preimage as docs/permit.md states it: a tag and canonical JSON.
	r := p.Request
	preimage, err := canon.Marshal(map[string]any{
		"v": 1, "subject": r.Subject, "action": r.Action, "resource": r.Resource, "argv": r.Argv, "cwd": r.Dir, "context": r.Context,
	})
	if err != nil {
		t.Fatal(err)
	}
	var e exeq.Envelope
	if err := json.Unmarshal(p.Permit.Envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	return issued{
		key:      write(t, dir, "issuer.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		envelope: write(t, dir, "permit.json", p.Permit.Envelope),
		action:   write(t, dir, "action", append([]byte("exeq.dev/action/v1\x00"), preimage...)),
		pae:      write(t, dir, "pae", dsse.PAE(e.PayloadType, payload)),
		sig:      write(t, dir, "sig", sig),
	}
}

// TestCosign: sigstore's cosign takes a permit for an attestation about the
// action, and refuses it about another action or under another key.
func TestCosign(t *testing.T) {
	cosign := build(t, "cosign", "github.com/sigstore/cosign/v3/cmd/cosign")
	p, other := issue(t), issue(t)
	home := []string{"HOME=" + t.TempDir(), "COSIGN_EXPERIMENTAL=0"}
	verify := func(key, action string) (string, bool) {
		return run(t, home, cosign, "verify-blob-attestation", "--key", key, "--type", exeq.PermitPredicate,
			"--insecure-ignore-tlog", "--signature", p.envelope, action)
	}
	if out, ok := verify(p.key, p.action); !ok || !strings.Contains(out, "Verified OK") {
		t.Fatalf("cosign refuses a permit:\n%s", out)
	}
	if out, ok := verify(other.key, p.action); ok {
		t.Errorf("cosign takes another issuer's key:\n%s", out)
	}
	if out, ok := verify(p.key, write(t, t.TempDir(), "else", []byte("another action"))); ok {
		t.Errorf("cosign takes the permit for another action:\n%s", out)
	}
}

// TestOpenSSL: the signature is plain Ed25519 over DSSE's encoding.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed: apt-get install openssl")
	}
	p, other := issue(t), issue(t)
	verify := func(key, pae string) (string, bool) {
		return run(t, nil, openssl, "pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", pae, "-sigfile", p.sig)
	}
	if out, ok := verify(p.key, p.pae); !ok || !strings.Contains(out, "Signature Verified Successfully") {
		t.Fatalf("openssl refuses a permit:\n%s", out)
	}
	if _, ok := verify(other.key, p.pae); ok {
		t.Error("openssl takes another key")
	}
	if _, ok := verify(p.key, other.pae); ok {
		t.Error("openssl takes another permit")
	}
}
