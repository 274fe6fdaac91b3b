// Package egress is the only way out of an execution: a forward proxy that
// runs in the supervisor, outside the execution's network namespace, and
// speaks HTTP (absolute form) and CONNECT on a listener that only the
// execution reaches.
//
// One request goes through fixed steps; each refuses on any doubt:
//
//	head → name → rights → gate → resolve → every address → dial that address
//
// The name is brought to one spelling or refused, held against the bound of
// the rights, and put to the decision point, all before any resolver hears of
// it: a name that policy does not allow leaves the machine in no form. Then
// the name is resolved here, each address it resolves to is judged, and the
// very address that was judged is dialled, so that a second answer of the name
// server changes nothing. Loopback, link-local, private, metadata and this
// machine's own addresses open only to a policy that names them: see
// [Proxy.Serve] and the table in addr.go.
//
// A tunnel is held to the name that was decided on: a TLS ClientHello that
// names another server is refused (domain fronting), and plain HTTP inside a
// tunnel is served as HTTP, with each Host field checked.
//
// Honest limits: inside TLS the Host field and HTTP/2 authorities are
// invisible, so a server that serves several names on one address may be asked
// for another of its names by a client that states the decided name in the
// ClientHello; with Encrypted Client Hello the visible name is the provider's,
// so a policy that names a provider's public ECH name allows what hides behind
// it; who owns an allowed name may encode data in names below it if policy
// allows those names too.
package egress
