package attacks

import "github.com/exeq/exeq"

type quota = exeq.Quotas

// Limits that rows name, by their ids in the one list of honest limits
// (enforce/probe), which `exeq doctor` and the documentation print.
const (
	LimitDigest       = "digest-rules"
	LimitArguments    = "arguments"
	LimitAccomplice   = "same-user"
	LimitResources    = "resources"
	LimitAbsent       = "absent-masks"
	LimitNames        = "names-visible"
	LimitAnonymous    = "anonymous-code"
	LimitProc         = "processes-visible"
	LimitUnixSockets  = "unix-sockets"
	LimitInterpreters = "interpreters"
	LimitHardLinks    = "hard-links"
	LimitStreams      = "standard-streams"
	LimitGroupID      = "set-group-id"
	LimitListeners    = "listeners"
	LimitPorts        = "ports-by-number"
	LimitMapping      = "mapping-race"
	LimitTmp          = "tmp-directory"
	LimitCaches       = "shared-caches"
)
