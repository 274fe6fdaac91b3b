package exeq

import "time"

// Limits of every decoder and every wait, in one file. A decoder refuses
// input beyond its limit before it parses; the error names the limit.
const (
	// MaxLeafBytes bounds one record leaf (design: 16 KiB).
	MaxLeafBytes = 16 << 10
	// MaxPermitBytes bounds a permit's DSSE envelope.
	MaxPermitBytes = 64 << 10
	// MaxScopeBytes bounds the envelope of a mandatory scope, MaxScopePrograms,
	// MaxScopeTrees and MaxScopePeople what it names.
	MaxScopeBytes    = 256 << 10
	MaxScopePrograms = 512
	MaxScopeTrees    = 64
	MaxScopePeople   = 64
	// MaxRequestBytes bounds a request, its argv included (Linux allows 2 MiB
	// of argv; what is larger is denied, never truncated).
	MaxRequestBytes = 4 << 20
	// MaxRightsBytes bounds compiled rights.
	MaxRightsBytes = 8 << 20
	// MaxProofBytes bounds a proof file.
	MaxProofBytes = 256 << 20
	// MaxTrustBytes bounds a trust file.
	MaxTrustBytes = 1 << 20
	// MaxPolicyBytes bounds the text of one policy file, MaxPolicySetBytes
	// that of a set; MaxPolicyNesting bounds brackets within one policy
	// (cedar-go's parser recurses).
	MaxPolicyBytes    = 4 << 20
	MaxPolicySetBytes = 64 << 20
	MaxPolicyNesting  = 64
	// MaxPolicyStatementBytes bounds the text of one policy: long operator
	// chains recurse as deep as they are long.
	MaxPolicyStatementBytes = 128 << 10
	// MaxPolicies bounds the policies of one set.
	MaxPolicies = 100_000
	// MaxConfigBytes bounds settings, entities, and test case files.
	MaxConfigBytes = 4 << 20
	// MaxDepth bounds the nesting of any JSON that Exeq decodes.
	MaxDepth = 32
	// MaxPathBytes bounds one decoded path (Linux PATH_MAX).
	MaxPathBytes = 4096
	// MaxTickActivities bounds the activity entries of one tick's leaf; more
	// are split over several leaves.
	MaxTickActivities = 4096
	// MaxDenialLeaves bounds the denials of one execution that get a leaf of their
	// own (some 6 KiB of state each, up to 40 until SQLite folds its log in), wherever policy has no lower quota; of those
	// beyond, each tick tells the number.
	MaxDenialLeaves = 2048
	// MaxProgramBytes bounds a program: what is larger is not read, and does not run.
	MaxProgramBytes = 2 << 30
	// MaxStoreBytes bounds the copies that stay in the noexec store between
	// executions; the oldest go first.
	MaxStoreBytes = 4 << 30
	// MaxProxyHeadBytes bounds a request head or a TLS ClientHello that the
	// egress proxy reads, MaxProxyHeaders the fields of a head, MaxProxyConns
	// the connections that one execution holds to the proxy at once.
	MaxProxyHeadBytes = 32 << 10
	MaxProxyHeaders   = 200
	MaxProxyConns     = 512
	// MaxRepositories bounds the git repositories of one workspace whose
	// configuration is kept: each costs several cells of the rights.
	// MaxGitDirectories bounds the directories searched for them, and
	// MaxGitHooks the files of one directory of hooks that are looked at.
	MaxRepositories   = 500
	MaxGitDirectories = 10_000
	MaxGitHooks       = 1000
	// MaxGitIndexBytes bounds a git index, MaxGitConfigBytes a configuration,
	// MaxGitPointerBytes a .git or commondir file (git's own limit of the
	// former).
	MaxGitIndexBytes   = 256 << 20
	MaxGitConfigBytes  = 1 << 20
	MaxGitPointerBytes = 1 << 20
	// MaxAPIBytes bounds a message of what runs under a server, MaxMessageBytes
	// the body of an AuthZEN message,
	// MaxRequestIDBytes the identifier that it repeats, MaxEvaluations the
	// questions of one message and MaxSearchResults the results of one page.
	MaxAPIBytes       = 32 << 20
	MaxMessageBytes   = 1 << 20
	MaxRequestIDBytes = 256
	MaxEvaluations    = 1000
	MaxSearchResults  = 1000
	// MaxDirectoriesBeside bounds the directories of a workspace in which a
	// repository that no policy names is looked for.
	MaxDirectoriesBeside = 2000
)

// Times of the flow. A lease counts on CLOCK_BOOTTIME.
const (
	// DefaultTick is how often a running execution is verified.
	DefaultTick = time.Second
	// DefaultLease is how long an execution lives without a renewal, standalone.
	DefaultLease = 3 * time.Second
	// DefaultPermitWindow is how long an unused permit stays valid.
	DefaultPermitWindow = 30 * time.Second
	// MaxMergeDelay is how far the outbox may lag behind before no new permits
	// are issued, and what a promise promises.
	MaxMergeDelay = 10 * time.Second
	// MaxBreakGlass is how long a person opens a mandatory scope at most, and
	// DefaultRehearsal how long one over the host is rehearsed before it is
	// enforced.
	MaxBreakGlass    = 8 * time.Hour
	DefaultRehearsal = 24 * time.Hour
	// RevocationDelay is how long a revocation that was issued on the same
	// machine takes at most to reach its supervisor.
	RevocationDelay = 200 * time.Millisecond
	// MaxClockStepBack is how far the wall clock may stand behind the latest
	// recorded time before the clock is not trusted.
	MaxClockStepBack = 5 * time.Second
)
