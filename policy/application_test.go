package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
)

// files of a small application; tests change one of them.
func application() map[string]string {
	return map[string]string{
		SchemaFile: `namespace Shop {
  entity group;
  entity clerk in [group] = { @stated shift?: String, level: Long, since?: datetime };
  @stated entity order = { @stated total?: Long, owner?: clerk, @stated from?: ipaddr, @stated tags?: Set<String> };
  action refund appliesTo { principal: [clerk], resource: [order], context: { action?: { amount: Long }, hour?: Long } };
}`,
		"shop.cedar": `@id("small-refunds")
permit (principal in Shop::group::"till", action == Shop::Action::"refund", resource)
when { context has action && context.action.amount <= 100 };

@id("not-at-night")
@resolve("step_up:owners")
forbid (principal, action, resource)
when { principal has shift && principal.shift == "night" };

@id("own-orders")
forbid (principal, action, resource)
when { resource has owner && resource.owner == principal };`,
		EntitiesFile: `[
  {"uid": {"type": "Shop::group", "id": "till"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Shop::clerk", "id": "ann"}, "attrs": {"level": 3}, "parents": [{"type": "Shop::group", "id": "till"}]},
  {"uid": {"type": "Shop::order", "id": "7"}, "attrs": {"owner": {"__entity": {"type": "Shop::clerk", "id": "ann"}}}, "parents": []}
]`,
	}
}

func writeApplication(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func loadApplication(t *testing.T) *Application {
	t.Helper()
	a, err := LoadApplication(writeApplication(t, application()))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refund asks whether ann may refund; the maps are properties and context.
func refund(subject map[string]any, amount string, order string, properties, context map[string]any) *authzen.Evaluation {
	limits := authzen.Limits{Bytes: 1 << 16, Depth: 8, Items: 1}
	e, err := authzen.DecodeEvaluation([]byte(`{"subject":{"type":"clerk","id":"ann"},"action":{"name":"refund","properties":{"amount":`+amount+`}},"resource":{"type":"order","id":"`+order+`"}}`), limits)
	if err != nil {
		panic(err)
	}
	e.Subject.Properties, e.Resource.Properties, e.Context = subject, properties, context
	return e
}

// TestApplicationDecides: verdicts follow the rules of a set, and a request's own
// word counts for what the schema marks alone.
func TestApplicationDecides(t *testing.T) {
	a := loadApplication(t)
	type m = map[string]any
	for _, c := range []struct {
		name    string
		asked   *authzen.Evaluation
		verdict exeq.Verdict
		reason  string
	}{
		{"small", refund(nil, "100", "1", nil, nil), exeq.Allow, "small-refunds"},
		{"large", refund(nil, "101", "1", nil, nil), exeq.Deny, "no policy"},
		{"at night", refund(m{"shift": "night"}, "100", "1", nil, nil), exeq.StepUp, "step_up:owners"},
		{"one's own", refund(nil, "100", "7", nil, nil), exeq.Deny, "own-orders"},
		{"one's own, said to be another's", refund(nil, "100", "7", m{"owner": "bob"}, nil), exeq.Deny, "own-orders"},
		{"an unmarked attribute is passed over", refund(nil, "100", "1", m{"owner": "ann"}, nil), exeq.Allow, "small-refunds"},
		{"a level of one's own making", refund(m{"level": "x"}, "100", "1", nil, nil), exeq.Allow, "small-refunds"},
		{"an amount in the context is not the action's", refund(nil, "101", "1", nil, m{"action": m{"amount": "1"}}), exeq.Deny, "no policy"},
		{"an amount that is no number", refund(nil, `"1"`, "1", nil, nil), exeq.Deny, "context.action.amount: want a whole number"},
		{"an amount too large for one", refund(nil, "1e99", "1", nil, nil), exeq.Deny, "whole number"},
		{"an address", refund(nil, "1", "1", m{"from": "10.0.0.1"}, nil), exeq.Allow, "small-refunds"},
		{"no address", refund(nil, "1", "1", m{"from": "10.0.0.999"}, nil), exeq.Deny, "resource.properties.from"},
		{"tags", refund(nil, "1", "1", m{"tags": []any{"a", "b"}}, nil), exeq.Allow, "small-refunds"},
		{"tags of two kinds", refund(nil, "1", "1", m{"tags": []any{"a", true}}, nil), exeq.Deny, "tags[1]"},
		{"context that the schema lacks", refund(nil, "1", "1", nil, m{"weather": "rain"}), exeq.Allow, "small-refunds"},
		{"context that misfits", refund(nil, "1", "1", nil, m{"hour": "noon"}), exeq.Deny, "context.hour"},
	} {
		d, err := a.Decide(t.Context(), c.asked)
		if d.Verdict != c.verdict || !strings.Contains(d.Reason, c.reason) || d.PolicySet != a.Digest() {
			t.Errorf("%s: %s, %q (%v), want %s, %q", c.name, d.Verdict, d.Reason, err, c.verdict, c.reason)
		}
		if err != nil && d.Verdict.Permits() {
			t.Errorf("%s: permitted beside an error: %v", c.name, err)
		}
	}
}

// TestApplicationRefused: what could not mean what it seems to is not loaded, and
// each fault is told with its file.
func TestApplicationRefused(t *testing.T) {
	for _, c := range []struct{ name, file, old, with, says string }{
		{"no schema", SchemaFile, "", "", SchemaFile + ": file does not exist"},
		{"a schema that does not parse", SchemaFile, "namespace", "namespaces", SchemaFile + ": does not parse"},
		{"a type twice", SchemaFile, "namespace Shop {", "namespace Other { entity clerk; }\nnamespace Shop {", "one name"},
		{"no action", SchemaFile, "action refund appliesTo { principal: [clerk], resource: [order], context: { action?: { amount: Long }, hour?: Long } };", "", "no action"},
		{"a policy of another type", "shop.cedar", `Shop::group::"till"`, `Shop::staff::"till"`, "shop.cedar:1"},
		{"a policy without id", "shop.cedar", `@id("own-orders")`, "", "no @id"},
		{"an id twice", "shop.cedar", `@id("own-orders")`, `@id("not-at-night")`, "another policy has this id"},
		{"a misspelt annotation", "shop.cedar", "@resolve", "@resolves", "unknown annotation"},
		{"a label", "shop.cedar", `@id("small-refunds")`, "@id(\"small-refunds\")\n@label(\"pii\")", "nothing runs"},
		{"an entity of another type", EntitiesFile, "Shop::order", "Shop::orders", EntitiesFile},
		{"an attribute too many", EntitiesFile, `"level": 3`, `"level": 3, "name": "Ann"`, EntitiesFile},
		{"an attribute too few", EntitiesFile, `"level": 3`, "", EntitiesFile},
		{"a member twice", EntitiesFile, `"level": 3`, `"level": 3, "level": 4`, EntitiesFile},
		{"not JSON", EntitiesFile, "[", "", EntitiesFile},
	} {
		files := application()
		if c.old == "" {
			delete(files, c.file)
		} else if !strings.Contains(files[c.file], c.old) {
			t.Fatalf("%s: nothing to change", c.name)
		} else {
			files[c.file] = strings.Replace(files[c.file], c.old, c.with, 1)
		}
		_, err := LoadApplication(writeApplication(t, files))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}
