package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/record"
)

// Decided is what a permit or denial leaf committed to.
type Decided struct {
	Request  *exeq.Request
	Inputs   *exeq.Inputs
	Decision exeq.Decision
}

// DecisionOf opens the decision of an execution's leaves, as Store.Leaves
// gives them.
func DecisionOf(leaves []record.Stored) (*Decided, error) {
	i := slices.IndexFunc(leaves, func(s record.Stored) bool {
		return s.Leaf.Kind == exeq.KindPermit || s.Leaf.Kind == exeq.KindDenial
	})
	if i < 0 {
		return nil, fmt.Errorf("no decision is on record")
	}
	d := &Decided{Request: new(exeq.Request), Inputs: new(exeq.Inputs)}
	for field, to := range map[string]any{"request": d.Request, "inputs": d.Inputs, "decision": &d.Decision} {
		j := slices.IndexFunc(leaves[i].Disclosures, func(x exeq.Disclosure) bool { return x.Field == field })
		if j < 0 {
			return nil, fmt.Errorf("the %s of the decision was erased", field)
		}
		if err := json.Unmarshal(leaves[i].Disclosures[j].Value, to); err != nil {
			return nil, fmt.Errorf("the %s of the decision: %w", field, err)
		}
	}
	return d, nil
}

// ActivitiesOf opens every activity on record of an execution, in order.
func ActivitiesOf(leaves []record.Stored) ([]exeq.ActivityEntry, error) {
	var out []exeq.ActivityEntry
	for _, s := range leaves {
		for _, d := range s.Disclosures {
			if s.Leaf.Kind != exeq.KindActivity || d.Field != "entries" {
				continue
			}
			var sealed []exeq.SealedEntry
			if err := json.Unmarshal(d.Value, &sealed); err != nil {
				return nil, fmt.Errorf("activities of leaf %s: %w", s.Leaf.ID, err)
			}
			for _, e := range sealed {
				out = append(out, e.Entry)
			}
		}
	}
	return out, nil
}

// SetOf loads the policy set that made a decision, from the record.
func (in *Installation) SetOf(ctx context.Context, digest exeq.Digest) (*policy.Set, error) {
	b, err := in.Store.Blob(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("policy set %s: %w", digest, err)
	}
	src, err := policy.DecodeSource(b)
	if err != nil {
		return nil, err
	}
	set, err := policy.Load(src)
	if err == nil && set.PolicySet() != digest {
		return nil, fmt.Errorf("policy set %s: the store holds other text under it", digest)
	}
	return set, err
}

// Denied gives the denied among activities.
func Denied(entries []exeq.ActivityEntry) []exeq.ActivityEntry {
	return slices.DeleteFunc(entries, func(e exeq.ActivityEntry) bool { return e.Verdict.Permits() })
}
