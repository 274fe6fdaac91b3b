package record

import (
	"encoding/json"
	"fmt"

	"github.com/exeq/exeq"
)

// encodeDisclosures stores what opens one leaf: JSON triples of field, salt and
// value. The values are canonical JSON already and go in as they are.
func encodeDisclosures(ds []exeq.Disclosure) []byte {
	n := 2
	for i := range ds {
		n += len(ds[i].Field) + len(ds[i].Value) + 48
	}
	b := append(make([]byte, 0, n), '[')
	for i := range ds {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(ds[i].Field)
		if err != nil {
			panic("record: " + err.Error()) // a string always has a JSON form
		}
		b = append(append(b, '['), name...)
		b = append(append(append(b, `,"`...), ds[i].Salt...), `",`...)
		b = append(append(b, ds[i].Value...), ']')
	}
	return append(b, ']')
}

// decodeDisclosures is the inverse of encodeDisclosures.
func decodeDisclosures(leaf string, b []byte) ([]exeq.Disclosure, error) {
	if b == nil {
		return nil, nil
	}
	var rows [][3]json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("disclosures of leaf %s are damaged", leaf)
	}
	out := make([]exeq.Disclosure, len(rows))
	for i, r := range rows {
		out[i].Leaf, out[i].Value = leaf, r[2]
		if json.Unmarshal(r[0], &out[i].Field) != nil || json.Unmarshal(r[1], &out[i].Salt) != nil {
			return nil, fmt.Errorf("disclosures of leaf %s are damaged", leaf)
		}
	}
	return out, nil
}
