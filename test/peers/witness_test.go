//go:build linux

package peers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
	"github.com/exeq/exeq/proof"
	"github.com/exeq/exeq/record"
)

// TestLitewitness: a C2SP witness that is not ours cosigns checkpoints of a
// real log as it grows, and refuses the log of an operator who started again.
func TestLitewitness(t *testing.T) {
	l := openRecord(t, t.TempDir())
	l.grow(t, 5)
	w := startWitness(t, l)

	first := l.checkpoint(t)
	if status, body := w.add(t, 0, nil, first); status != http.StatusOK {
		t.Fatalf("the first checkpoint: %d %s", status, body)
	} else if !strings.Contains(body, "— witness.test/lite ") {
		t.Fatalf("no cosignature in %q", body)
	}
	l.grow(t, 20)
	second := l.checkpoint(t)
	old := sizeOf(t, first)
	proof, err := l.store.Consistency(t.Context(), old, sizeOf(t, second))
	if err != nil {
		t.Fatal(err)
	}
	status, body := w.add(t, old, proof, second)
	if status != http.StatusOK {
		t.Fatalf("the log has grown: %d %s", status, body)
	}
	w.verified(t, l, append(bytes.Clone(second), body...))

	fork := openRecord(t, rolledBack(t, l))
	fork.grow(t, 40) // larger, and another log
	forked := fork.checkpoint(t)
	for _, from := range []int64{0, old, sizeOf(t, second)} {
		var bogus []exeq.Digest
		if from > 0 {
			if bogus, err = fork.store.Consistency(t.Context(), from, sizeOf(t, forked)); err != nil {
				t.Fatal(err)
			}
		}
		if status, body := w.add(t, from, bogus, forked); status == http.StatusOK {
			t.Errorf("the witness cosigned a fork from size %d: %s", from, body)
		}
	}
}

type witness struct {
	url  string
	vkey string
}

// startWitness runs litewitness with its key in an ssh-agent.
func startWitness(t *testing.T, l *logged) *witness {
	t.Helper()
	for _, p := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: apt-get install openssh-client", p)
		}
	}
	program := build(t, "litewitness", "filippo.io/torchwood/cmd/litewitness")
	dir, err := os.MkdirTemp("", "lw") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	key := filepath.Join(dir, "key")
	if out, ok := run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); !ok {
		t.Fatal(out)
	}
	out, ok := run(t, nil, "ssh-keygen", "-l", "-f", key)
	if !ok || len(strings.Fields(out)) < 2 {
		t.Fatal(out)
	}
	fingerprint := strings.Fields(out)[1]
	socket := filepath.Join(dir, "agent")
	background(t, "ssh-agent", "-D", "-a", socket)
	until(t, func() bool { _, err := os.Stat(socket); return err == nil })
	if out, ok := run(t, []string{"SSH_AUTH_SOCK=" + socket}, "ssh-add", "-q", key); !ok {
		t.Fatal(out)
	}
	db := filepath.Join(dir, "witness.db")
	enrol(t, db, l)
	addr := freeAddress(t)
	background(t, program, "-name", "witness.test/lite", "-db", db, "-ssh-agent", socket, "-listen", addr, "-key", fingerprint)
	until(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return &witness{url: "http://" + addr, vkey: witnessKey(t, "witness.test/lite", pub)}
}

// enrol writes the log into litewitness's database, as witnessctl would.
func enrol(t *testing.T, file string, l *logged) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	empty := sha256.Sum256(nil)
	for _, q := range []struct {
		text string
		args []any
	}{
		{"CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL)", nil},
		{"CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin))", nil},
		{"INSERT INTO log VALUES (?, 0, ?)", []any{l.keys.Origin(), base64.StdEncoding.EncodeToString(empty[:])}},
		{"INSERT INTO key VALUES (?, ?)", []any{l.keys.Origin(), l.keys.VerifierKey(exeq.RoleLog)}},
	} {
		if _, err := db.Exec(q.text, q.args...); err != nil {
			t.Fatalf("%s: %v", q.text, err)
		}
	}
}

// add submits a checkpoint by C2SP tlog-witness.
func (w *witness) add(t *testing.T, old int64, proof []exeq.Digest, checkpoint []byte) (int, string) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	r, err := http.Post(w.url+"/add-checkpoint", "text/plain", &b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// witnessKey makes the C2SP verifier key of an OpenSSH public key.
func witnessKey(t *testing.T, name string, authorized []byte) string {
	t.Helper()
	f := strings.Fields(string(authorized))
	blob, err := base64.StdEncoding.DecodeString(f[1])
	if err != nil || len(blob) < 32 {
		t.Fatal("not an OpenSSH key", err)
	}
	material := append([]byte{4}, blob[len(blob)-32:]...)
	sum := sha256.Sum256(append([]byte(name+"\n"), material...))
	return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(sum[:]), base64.StdEncoding.EncodeToString(material))
}

// background runs a program until the test ends.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(name), log.String())
		}
	})
}

// until waits for what another process does.
func until(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if done() {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it never happened")
		case <-tick.C:
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// verified: Exeq's own verifier takes the cosignature of the stranger.
func (w *witness) verified(t *testing.T, l *logged, cosigned []byte) {
	t.Helper()
	receipts, err := l.store.Receipts(t.Context(), l.ids[0])
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(receipts[0].Proof, "\n\n")
	if !ok {
		t.Fatal("not a receipt")
	}
	p := &proof.Proof{
		Version: 1, Execution: "e", Leaves: []string{string(l.raw[l.ids[0]])}, Context: []string{}, Disclosures: []exeq.Disclosure{},
		Promise: exeq.Promise{Path: []exeq.Digest{}}, Receipts: []exeq.Receipt{{Leaf: l.ids[0], Proof: head + "\n\n" + string(cosigned)}},
	}
	trust := &proof.Trust{
		Version: 1, Origin: l.keys.Origin(), Log: l.keys.VerifierKey(exeq.RoleLog), Promise: l.keys.VerifierKey(exeq.RolePromise),
		Witnesses: "witness lite " + w.vkey + "\nquorum lite\n", Require: []string{proof.CheckWitnessed},
	}
	r, err := proof.Verify(p, trust, proof.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if line := r.Line(proof.CheckWitnessed); line.Status != proof.Proved {
		t.Errorf("witnessed: %s, %s", line.Status, line.Detail)
	}
}

// TestLitewitnessInTheFlow: a record that is configured with the witness
// publishes cosigned checkpoints, and one whose operator started again never
// gets a leaf under a checkpoint.
func TestLitewitnessInTheFlow(t *testing.T) {
	dir := t.TempDir()
	keys, _, err := keyring.OpenOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := startWitness(t, &logged{dir: dir, keys: keys})
	policy := "witness lite " + w.vkey + " " + w.url + "\nquorum lite\n"
	write(t, dir, record.WitnessPolicy, []byte(policy))
	l := openRecord(t, dir)
	l.grow(t, 12)
	if c := l.checkpoint(t); !strings.Contains(string(c), "\n— witness.test/lite ") {
		t.Fatalf("published without the witness:\n%s", c)
	}
	w.verified(t, l, l.checkpoint(t))

	fork := rolledBack(t, l)
	write(t, fork, record.WitnessPolicy, []byte(policy))
	again := openRecord(t, fork)
	e, err := exeq.NewEntry(exeq.Leaf{Kind: exeq.KindDenial, Execution: exeq.NewID()}, nil, again.keys.Signer(exeq.RoleIssuer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.store.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := again.store.Drain(ctx); err == nil {
		t.Error("the log of an operator who started again was cosigned")
	}
}
