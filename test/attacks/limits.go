package attacks

import "github.com/exeq/exeq"

type quota = exeq.Quotas

// Limits that rows name. Each must stand in the list that `exeq doctor` prints
// (enforce/probe); a test compares.
const (
	LimitDigest     = "digest"
	LimitArguments  = "arguments"
	LimitAccomplice = "accomplice"
	LimitAnonymous  = "anonymous memory"
	LimitProc       = "proc"
	LimitPriority   = "priority"
	LimitCaches     = "caches"
	LimitShm        = "shm"
	LimitIPC        = "ipc"
)
