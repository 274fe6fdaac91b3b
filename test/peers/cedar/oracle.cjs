// Decides requests with Cedar's Rust implementation. Standard input:
//   {"schema": text, "sets": [{"permits": {id: text}, "forbids": {id: text},
//    "cases": [{"principal", "action", "resource", "context", "entities"}]}]}
// Standard output, a set each: {"problems": […], "cases": [{"permits": […],
// "forbids": […], "errors": […]}]}: the ids of all satisfied and of all
// erring policies, which one Cedar decision alone would not tell.
"use strict";
const cedar = require("@cedar-policy/cedar-wasm/nodejs");
const { schema, sets } = JSON.parse(require("fs").readFileSync(0, "utf8"));

// Cedar skips the permits where a forbid holds: so each effect is asked alone,
// the forbids beside a permit for everything.
const everything = "permit (principal, action, resource);";

function must(a) {
  if (a.type !== "success") throw new Error(JSON.stringify(a.errors));
  return a;
}

function ask(call, set, drop) {
  const a = must(cedar.statefulIsAuthorized({ ...call, preparsedPolicySetId: set, preparsedSchemaName: "exeq", validateRequest: true }));
  const d = a.response.diagnostics;
  return { reasons: d.reason.filter((id) => id !== drop), errors: d.errors.map((e) => e.policyId) };
}

must(cedar.preparseSchema("exeq", schema));
const out = sets.map(({ permits, forbids, cases }) => {
  const v = cedar.validate({ schema, policies: { staticPolicies: { ...permits, ...forbids } }, validationSettings: { mode: "strict" } });
  const problems = v.type === "success" ? v.validationErrors.map((e) => e.policyId + ": " + e.error.message) : v.errors.map((e) => e.message);
  must(cedar.preparsePolicySet("permits", { staticPolicies: permits }));
  must(cedar.preparsePolicySet("forbids", { staticPolicies: { ...forbids, "*": everything } }));
  return {
    problems,
    cases: cases.map((c) => {
      const p = ask(c, "permits"), f = ask(c, "forbids", "*");
      return { permits: p.reasons.sort(), forbids: f.reasons.sort(), errors: [...p.errors, ...f.errors].sort() };
    }),
  };
});
process.stdout.write(JSON.stringify(out));
