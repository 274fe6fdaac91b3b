package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// cedarLinear is cedar-go's own Authorize over the set, which tries every
// policy. Entities are made beforehand, exactly those that a request needs.
func cedarLinear(dir string, requests []asked) (engine, error) {
	e := engine{name: "cedar-go, linear", ids: true}
	text, err := os.ReadFile(filepath.Join(dir, "set", "policy.cedar"))
	if err != nil {
		return e, err
	}
	list, err := cedar.NewPolicyListFromBytes("policy.cedar", text)
	if err != nil {
		return e, err
	}
	set := cedar.NewPolicySet()
	for _, p := range list {
		set.Add(cedar.PolicyID(p.Annotations()["id"]), p)
	}
	type prepared struct {
		request  cedar.Request
		entities types.EntityMap
	}
	all := make([]prepared, len(requests))
	for i, r := range requests {
		var q struct {
			Principal, Action, Resource struct {
				Type types.EntityType `json:"type"`
				ID   types.String     `json:"id"`
			}
			Context  types.Record
			Entities types.EntityMap
		}
		if err := json.Unmarshal(r.Cedar, &q); err != nil {
			return e, err
		}
		all[i] = prepared{cedar.Request{
			Principal: types.EntityUID(q.Principal), Action: types.EntityUID(q.Action), Resource: types.EntityUID(q.Resource),
			Context: q.Context,
		}, q.Entities}
	}
	e.decide = func(i int) (answer, error) {
		d, diag := cedar.Authorize(set, all[i].entities, all[i].request)
		a := answer{Allow: d == cedar.Allow, Policies: make([]string, len(diag.Reasons))}
		for j, r := range diag.Reasons {
			a.Policies[j] = string(r.PolicyID)
		}
		return a, nil
	}
	return e, nil
}
