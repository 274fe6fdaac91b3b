package exeq

import "github.com/exeq/exeq/internal/canon"

// Enclosure is a node's signed word that it admitted a permit itself and that
// the kernel's gate was closed around the execution, and bit, before anything
// of it ran. It stands in what was applied, so that a tier above the
// supervisor's own does not rest on the supervisor's word.
type Enclosure struct {
	Version  int      `json:"v"` // 1
	Permit   string   `json:"permit"`
	Audience Audience `json:"audience"` // of the permit, and who the node is
	Tier     Tier     `json:"tier"`
	// Canary names what was tried in the execution's own cgroup and refused.
	Canary string `json:"canary"`
	// Gate is the SHA-256 of the programs that are in the kernel: which build of
	// the gate it was.
	Gate Digest `json:"gate"`
	// Missing names what this node's kernel does not have of the tier.
	Missing []string `json:"missing,omitempty"`
	Time    Time     `json:"time"`
	// Key is the node's key id, Signature is over the tag ‖ JCS of the members
	// above, base64.
	Key       string `json:"key"`
	Signature string `json:"sig"`
}

// Downgrades are what is missing as a start that rests on the enclosure tells it.
func (e *Enclosure) Downgrades() []string {
	var out []string
	for _, m := range e.Missing {
		out = append(out, "the kernel's gate: "+m)
	}
	return out
}

// Signable is what an enclosure's signature covers.
func (e Enclosure) Signable() ([]byte, error) {
	e.Signature = ""
	b, err := canon.Marshal(e)
	return append([]byte(tagEnclosure), b...), err
}
