//go:build linux

package node

import "time"

// Limits of what the node takes on, in one file; those of messages are in
// package wire.
const (
	// maxConnections are served at once, of them maxUserConnections of one user
	// other than root.
	maxConnections     = 256
	maxUserConnections = 64
	// maxStuck descriptors of a user may be closing for so long as they like; who
	// has so many is not heard any more. With all connections that were open
	// then, they stay far below the threads that a process may have.
	maxStuck = 4
	// maxLarge messages above wire.MaxSmall are read at once, of them one of each
	// user other than root.
	maxLarge = 4
	// messageTime is how long a message may take to arrive, and an answer to be
	// taken.
	messageTime = 5 * time.Second

	// maxExecutions are held at once, of them maxUserExecutions of one user
	// other than root.
	maxExecutions     = 2048
	maxUserExecutions = 1024
	// maxRights bounds what all permits together bind, as it travelled,
	// maxUserRights what those of one user other than root do.
	maxRights     = 256 << 20
	maxUserRights = maxRights / 4
	// maxPrograms are approved for one execution, maxUserPrograms for all of one
	// user other than root; the gate has room for four such users.
	maxPrograms     = 16 << 10
	maxUserPrograms = 64 << 10
	// maxPlaces are set for one execution, maxUserPlaces for all of one user other
	// than root; the gate has room for the names of four such users.
	maxPlaces     = 16 << 10
	maxUserPlaces = 64 << 10
	// maxShut paths a supervisor may want shut besides.
	maxShut = 64
	// maxLogged denials of one execution are logged; all are counted.
	maxLogged = 64
	// maxEvents of the gate are read in a glance; what it could not kill is no
	// part of them.
	maxEvents = 512
	// maxHashes are kept of files that were hashed before.
	maxHashes = 64 << 10
	// maxBurnt nonces are kept; each goes when its permit has expired.
	maxBurnt = 1 << 20

	// unreleasedTime is how long an admitted permit may wait for its processes.
	unreleasedTime = 30 * time.Second
	// endTime is how long killed processes may take to be gone until it is said
	// that they are not; they are waited for on.
	endTime = 10 * time.Second
	// keepTime is how long an ended execution can be asked about.
	keepTime = 30 * time.Second
	// glance is how often leases are looked at; after a suspend the clock that
	// counts it is read so much later at most.
	glance = 50 * time.Millisecond

	// trustTime is how long a user who lost trust may still connect; a permit is
	// judged by what is there when it comes. checkTime is how old the look at the
	// gate's hooks may be that a challenge rests on.
	trustTime = time.Second
	checkTime = 100 * time.Millisecond

	// maxScopes are held, those that were lifted among them: their serials stay.
	maxScopes = 256
	// maxAttempts are told apart in the report of one scope, maxReported of them
	// in an answer; the others are counted.
	maxAttempts = 2048
	maxReported = 512
	// maxReports that were signed are known, for statements that name one.
	maxReports = 64
	// maxHashedAttempt bounds a file that is hashed for a report.
	maxHashedAttempt = 64 << 20
	// maxReportedPath bounds the path of one that is told; of a longer one the
	// report has the name that the caller gave, which the kernel bounds.
	maxReportedPath = 512
	// maxScopeFile bounds a file of a scope, maxOpeningsFile the one of openings:
	// when it is full, nothing opens.
	maxScopeFile    = 8 << 20
	maxOpeningsFile = 16 << 20
	// scopeTime is how often it is looked whether what a scope lives by is still
	// the same file.
	scopeTime = 5 * time.Second

	// maxTrustFile and maxTrustFiles bound what says whose permits are taken.
	maxTrustFile  = 16 << 10
	maxTrustFiles = 1024
)
