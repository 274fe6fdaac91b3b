package record

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/exeq/exeq"
)

// merkle is an RFC 6962 tree, level by level from the leaves' hashes; a node
// without a sibling stands unchanged on the next level.
type merkle [][]exeq.Digest

func newMerkle(leaves []exeq.Digest) merkle {
	m := merkle{leaves}
	for level := leaves; len(level) > 1; {
		up := make([]exeq.Digest, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, nodeHash(&level[i], &level[i+1]))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		m = append(m, up)
		level = up
	}
	return m
}

func nodeHash(l, r *exeq.Digest) exeq.Digest {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], l[:])
	copy(b[1+sha256.Size:], r[:])
	return sha256.Sum256(b[:])
}

func (m merkle) root() exeq.Digest { return m[len(m)-1][0] }

// path is the inclusion path of leaf i, from its sibling upwards.
func (m merkle) path(i int) []exeq.Digest {
	path := make([]exeq.Digest, 0, len(m)-1)
	for _, level := range m[:len(m)-1] {
		if sibling := i ^ 1; sibling < len(level) {
			path = append(path, level[sibling])
		}
		i /= 2
	}
	return path
}

// promiseText is the text that a promise's note signs; see [exeq.Promise].
func promiseText(name string, n int, root exeq.Digest, ms int64) string {
	return fmt.Sprintf("%s\n%d\n%s\ntime %d\n", name, n, base64.StdEncoding.EncodeToString(root[:]), ms)
}

func signPromise(key note.Signer, n int, root exeq.Digest, ms int64) (string, error) {
	b, err := note.Sign(&note.Note{Text: promiseText(key.Name(), n, root, ms)}, key)
	return string(b), err
}

// checkPromise verifies a stored promise against the leaves that it is for.
func checkPromise(keys note.Verifiers, name, text string, hashes []exeq.Digest, ms int64) error {
	n, err := note.Open([]byte(text), keys)
	if err != nil {
		return fmt.Errorf("its promise is not signed by the promise key")
	}
	if len(hashes) == 0 || n.Text != promiseText(name, len(hashes), newMerkle(hashes).root(), ms) {
		return fmt.Errorf("its leaves are not those that were promised")
	}
	return nil
}
