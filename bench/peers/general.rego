# Policies as data: one rule goes through them all. It is how sets that people
# or programs edit are often kept; OPA has no index into data.
package exeq

import rego.v1

permits contains r.id if {
	some r in data.rules
	r.effect == "permit"
	matches(r)
}

forbids contains r.id if {
	some r in data.rules
	r.effect == "forbid"
	matches(r)
}

matches(r) if {
	input.action in r.actions
	who(r)
	what(r)
	circumstances(r)
}

who(r) if r.team in input.principal.teams

who(r) if r.agent == input.principal.id

who(r) if {
	not r.team
	not r.agent
}

what(r) if startswith(input.resource.path, r.prefix)

what(r) if {
	r.domain in input.resource.domains
	object.get(r, "port", input.resource.port) == input.resource.port
}

what(r) if r.server == input.resource.server

what(r) if {
	not r.prefix
	not r.domain
	not r.server
}

circumstances(r) if r.label in input.context.labels

circumstances(r) if r.arg in input.context.args

circumstances(r) if {
	not r.label
	not r.arg
}
