//go:build linux

package record

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// cosigner is a C2SP tlog-witness for one log: it cosigns only what continues
// what it cosigned last.
type cosigner struct {
	key    *fnote.Signer
	log    note.Verifier
	origin string

	mu   sync.Mutex
	seen tlog.Tree
	down bool
	asks int
}

func (c *cosigner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks++
	body, err := io.ReadAll(r.Body)
	if c.down || err != nil {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	head, checkpoint, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if old != c.seen.N {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, c.seen.N)
		return
	}
	n, err := note.Open([]byte(checkpoint), note.VerifierList(c.log))
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	tree, err := parseTree(n.Text, c.origin)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var p tlog.TreeProof
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			http.Error(w, "not a hash", http.StatusBadRequest)
			return
		}
		p = append(p, tlog.Hash(h))
	}
	if old > 0 {
		if err := tlog.CheckTree(p, tree.N, tree.Hash, c.seen.N, c.seen.Hash); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
	}
	signed, err := note.Sign(&note.Note{Text: n.Text}, c.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c.seen = *tree
	io.WriteString(w, strings.TrimPrefix(string(signed), n.Text+"\n"))
}

func (c *cosigner) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func newCosigner(t *testing.T, dir string, keys *keyring.Ring) *cosigner {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "witness.test/w")
	if err != nil {
		t.Fatal(err)
	}
	key, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	cosig, err := fnote.VKeyToCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	c := &cosigner{key: key, log: keys.NoteVerifier(exeq.RoleLog), origin: keys.Origin()}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	policy := fmt.Sprintf("witness w %s %s\nquorum w\n", cosig, srv.URL)
	if err := os.WriteFile(filepath.Join(dir, WitnessPolicy), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWitness: with a witness policy every published checkpoint carries the
// quorum; while the witness is away nothing is published, and after the merge
// delay no permit is recorded.
func TestWitness(t *testing.T) {
	dir, keys := newState(t)
	c := newCosigner(t, dir, keys)
	var mu sync.Mutex
	var skip time.Duration
	s, err := Open(context.Background(), Config{Dir: dir, Keys: keys, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(skip)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := within(t)
	for range 2 {
		if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
			t.Fatal(err)
		}
		if err := s.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		raw, err := s.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := note.Open(raw, note.VerifierList(keys.NoteVerifier(exeq.RoleLog), c.key.Verifier())); err != nil || len(n.Sigs) != 2 {
			t.Errorf("%v\n%s", err, raw)
		}
	}
	sound(t, s)

	c.set(true)
	if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
		t.Fatal(err)
	}
	before, err := s.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The drain gives up when the witness was asked and did not answer.
	draining, stop := context.WithCancel(ctx)
	asked := make(chan error, 1)
	go func() { asked <- s.Drain(draining) }()
	c.mu.Lock()
	from := c.asks
	c.mu.Unlock()
	for n := from; n < from+2; {
		if err := pause(ctx, nil, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		n = c.asks
		c.mu.Unlock()
	}
	stop()
	if err := <-asked; !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("draining without the witness: %v", err)
	}
	if after, err := s.Checkpoint(ctx); err != nil || string(after) != string(before) {
		t.Errorf("published without a quorum, %v:\n%s", err, after)
	}
	mu.Lock()
	skip = exeq.MaxMergeDelay + time.Second
	mu.Unlock()
	fresh := chain(t, keys, exeq.KindPermit)
	if _, err := s.Record(ctx, fresh...); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("a permit after the merge delay: %v", err)
	}

	c.set(false)
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(ctx, fresh...); err != nil {
		t.Errorf("a permit with the witness back: %v", err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}

// TestWitnessPolicyBroken: a policy that cannot be read is no policy of none.
func TestWitnessPolicyBroken(t *testing.T) {
	dir, keys := newState(t)
	if err := os.WriteFile(filepath.Join(dir, WitnessPolicy), []byte("quorum nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, keys)
	ctx := within(t)
	if _, err := s.Record(ctx, chain(t, keys, whole...)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(ctx); !errors.Is(err, exeq.ErrRecord) {
		t.Errorf("drained: %v", err)
	}
}
