//go:build linux

package record

import (
	"encoding/base64"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/keyring"
)

// strangerChecks has Tessera's own fsck judge the log, with nothing of this
// package between it and the files but their reading.
func strangerChecks(t testing.TB, dir string, keys *keyring.Ring, atLeast int64) {
	t.Helper()
	l := newLogReader(filepath.Join(dir, "log"), keys)
	cp, err := l.checkpoint()
	if err != nil {
		t.Error(err)
		return
	}
	if cp.tree.N < atLeast {
		t.Errorf("the log has %d entries, want %d", cp.tree.N, atLeast)
	}
	if err := fsck.New(keys.Origin(), keys.NoteVerifier(exeq.RoleLog), fetcher{l.dir, cp.raw}, bundleHashes, fsck.Opts{N: 1}).Check(within(t)); err != nil {
		t.Errorf("tessera's fsck: %v", err)
	}
}

// checkReceipt verifies a tlog-proof@v1 by its specification.
func checkReceipt(t testing.TB, keys *keyring.Ring, text string, leaf []byte, index, size int64) {
	t.Helper()
	head, checkpoint, ok := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != "index "+strconv.FormatInt(index, 10) {
		t.Fatalf("not a tlog-proof of %d:\n%s", index, text)
	}
	var path tlog.RecordProof
	for _, l := range lines[2:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			t.Fatalf("not a hash: %q", l)
		}
		path = append(path, tlog.Hash(h))
	}
	n, err := note.Open([]byte(checkpoint), note.VerifierList(keys.NoteVerifier(exeq.RoleLog)))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := parseTree(n.Text, keys.Origin())
	if err != nil {
		t.Fatal(err)
	}
	if tree.N < size {
		t.Errorf("the checkpoint covers %d entries, want %d", tree.N, size)
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
		t.Error(err)
	}
}
