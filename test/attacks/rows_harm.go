package attacks

// file is an attack that changes a file outside the workspace.
func file(technique string) Attack {
	return Attack{Name: technique, Line: "./files " + technique + " {target} {token}", Proof: changes("{target}")}
}

// attribute is file for what no rule of the nested tier covers.
func attribute(technique string) Attack {
	a := file(technique)
	a.Expect, a.Limit = tiers(Denied, Limited), LimitAttributes
	return a
}

// The guard itself: Exeq's state and binary, and what other people's tools run
// or obey later.
var guard = Family{"Guard edited", []Attack{
	file("write"), file("open-trunc"), file("truncate"), attribute("chmod"), file("fchmod"), attribute("fchmodat2"),
	attribute("utimes"), attribute("xattr"), file("unlink"), file("rename-over"), file("exchange"), file("rename-away"),
	file("hardlink"), file("symlink"), file("map"), file("reopen"), file("opath"), file("dirfd"),
	{Name: "chown", Line: "./files chown {target} 65533", Proof: changes("{target}"), Who: "root"},
	{Name: "create outside", Line: "./files create {out}/new {token}", Proof: makes("{out}/new")},
	{Name: "mkdir outside", Line: "./files mkdir {out}/new", Proof: makes("{out}/new")},
	{Name: "mkfifo outside", Line: "./files mknod {out}/new", Proof: makes("{out}/new")},
	{Name: "symlink outside", Line: "./files symlink-at {out}/new", Proof: makes("{out}/new")},
	{Name: "hard link outside", Line: "./files link-out {out}/new {token}", Proof: makes("{out}/new")},
	{Name: "a socket outside", Line: "./sock handed {out}/new", Proof: makes("{out}/new"), Then: "hand in"},
	{Name: "a set-user-ID file for later", Line: "./files setuid {ws}/later && ls -l later", Proof: prints("-rws")},
	{Name: "a cache turned into a link", Line: "rmdir {home}/.cache/go-build && ln -s {out} {home}/.cache/go-build && echo {token} >>{home}/.cache/go-build/target", Proof: changes("{target}")},
	{Name: "a link in the temporary directory", Line: "d=$(mktemp -d) && ln -s {out} $d/l && echo {token} >>$d/l/target; s=$?; rm -r $d; exit $s", Proof: changes("{target}")},
	{Name: "Exeq's state read", Line: "cat {state}/planted", Proof: secretOut},
	{Name: "Exeq's state listed", Line: "ls {state}", Proof: prints("planted")},
	{Name: "Exeq's keys read", Line: "grep -r . {state}", Proof: prints("{state}/")},
	{Name: "Exeq's state written", Line: "echo {token} >>{state}/planted", Proof: changes("{state}/planted")},
	{Name: "Exeq's state added to", Line: "echo {token} >{state}/new", Proof: holds("{state}/new")},
	{Name: "Exeq's state moved away", Line: "mv {state} {state}-moved", Proof: makes("{state}-moved")},
	{Name: "a policy added", Line: "echo 'permit(principal,action,resource);' >{state}/policy/new.cedar", Proof: makes("{state}/policy/new.cedar")},
	{Name: "Exeq's binary replaced", Line: "cp /usr/bin/true t && mv t {exeq}", Proof: changes("{exeq}")},
	{Name: "Exeq's binary removed", Line: "rm -f {exeq}", Proof: changes("{exeq}")},
	{Name: "a nested run with wider rights", Line: "{exeq} run --state {ws}/st --policy {wide} -- cat {secret}", Proof: secretOut},
	{Name: "a git hook", Line: "echo {token} >>.git/hooks/pre-commit", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "a new git hook", Line: "echo {token} >.git/hooks/post-checkout", Proof: holds("{ws}/.git/hooks/post-checkout")},
	{Name: "a git hook by a renamed parent", Line: "mv .git g && mkdir -p .git/hooks && echo {token} >.git/hooks/pre-commit", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "a git hook by a renamed hooks directory", Line: "mv .git/hooks .git/h && mkdir .git/hooks && echo {token} >.git/hooks/pre-commit", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "a git hook by a hard link", Line: "ln .git/hooks/pre-commit alias && echo {token} >>alias", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "a git hook by a symbolic link", Line: "ln -s .git/hooks h; echo {token} >>h/pre-commit", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "a git hook made executable", Line: "chmod +x .git/hooks/pre-commit", Proof: changes("{ws}/.git/hooks/pre-commit"),
		Expect: tiers(Denied, Limited), Limit: LimitAttributes},
	{Name: "git hooks removed", Line: "rm -rf .git/hooks", Proof: changes("{ws}/.git/hooks/pre-commit")},
	{Name: "git's configuration", Line: "git config core.fsmonitor {tool}", Proof: changes("{ws}/.git/config")},
	{Name: "git's configuration renamed over", Line: "cp .git/config c; echo '[core] pager = {tool}' >>c; mv c .git/config", Proof: changes("{ws}/.git/config")},
	{Name: "git's data by commondir", Line: "cp -r .git evil && echo ../evil/{token} >.git/commondir", Proof: holds("{ws}/.git/commondir"),
		Expect: tiers(Limited, Denied), Limit: LimitAbsent, Says: "the run made {ws}/.git/commondir"},
	{Name: "git's directory replaced", Line: "rm -rf .git; mkdir -p .git && echo {token} >.git/config", Proof: holds("{ws}/.git/config")},
	{Name: "git's directory by a file", Line: "mv .git g; rm -rf .git; echo 'gitdir: {token}' >.git", Proof: holds("{gitfile}")},
	{Name: "a .git file", Line: "echo 'gitdir: {token}' >{gitfile}", Proof: changes("{gitfile}")},
	{Name: "a .git file renamed over", Line: "echo 'gitdir: {token}' >g; mv g {gitfile}", Proof: changes("{gitfile}")},
	{Name: "a .git file removed", Line: "rm {gitfile}; mkdir {gitfile} && echo {token} >{gitfile}/config", Proof: holds("{gitfile}/config")},
	{Name: "the configuration of an embedded repository", Line: "echo '#{token}' >>{module}/.git/config", Proof: changes("{module}/.git/config")},
	{Name: "an embedded repository replaced", Line: "mv {module} m; mkdir -p {module}/.git && echo {token} >{module}/.git/config", Proof: holds("{module}/.git/config")},
	{Name: "an embedded repository made", Line: "git init -q ws.git/x && cd ws.git/x && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && cd ../.. && git add ws.git/x && echo '#{token}' >>ws.git/x/.git/config",
		Proof: holds("{ws}/ws.git/x/.git/config"), Expect: both(Limited), Limit: LimitAbsent, Says: "the run made {ws}/ws.git/x/.git"},
	{Name: "a linked .envrc", Line: "echo {token} >>{linkedenvrc}", Proof: changes("{ws}/real")},
	{Name: "a linked .envrc replaced", Line: "rm {linkedenvrc}; echo {token} >{linkedenvrc}", Proof: changes("{linkedenvrc}")},
	{Name: "a linked .envrc renamed over", Line: "echo {token} >e; mv e {linkedenvrc}", Proof: changes("{linkedenvrc}")},
	{Name: "what .envrc links to replaced", Line: "echo {token} >e; mv e real; : {linkedenvrc}", Proof: changes("{ws}/real")},
	{Name: "linked git hooks", Line: "echo {token} >>hk/pre-commit; : {linkedhooks}", Proof: changes("{ws}/hk/pre-commit")},
	{Name: "linked git hooks replaced", Line: "rm {linkedhooks}; mkdir {linkedhooks} && echo {token} >{linkedhooks}/pre-commit", Proof: holds("{linkedhooks}/pre-commit")},
	{Name: ".envrc", Line: "echo {token} >>.envrc", Proof: changes("{ws}/.envrc")},
	{Name: ".envrc renamed over", Line: "echo {token} >e; mv e .envrc", Proof: changes("{ws}/.envrc")},
	{Name: ".envrc truncated", Line: "./files truncate {ws}/.envrc", Proof: changes("{ws}/.envrc")},
	{Name: ".vscode", Line: "echo {token} >>.vscode/tasks.json", Proof: changes("{ws}/.vscode/tasks.json")},
	{Name: ".vscode replaced", Line: "mv .vscode v && mkdir .vscode && echo {token} >.vscode/tasks.json", Proof: changes("{ws}/.vscode/tasks.json")},
	{Name: ".husky where there is none", Line: "mkdir -p .husky && echo {token} >.husky/pre-commit", Proof: holds("{ws}/.husky/pre-commit"),
		Expect: tiers(Limited, Denied), Limit: LimitAbsent, Says: "the run made {ws}/.husky"},
	{Name: ".mcp.json where there is none", Line: "echo {token} >.mcp.json", Proof: holds("{ws}/.mcp.json"),
		Expect: tiers(Limited, Denied), Limit: LimitAbsent, Says: "the run made {ws}/.mcp.json"},
	{Name: "an agent's settings where there are none", Line: "mkdir -p .claude && echo {token} >.claude/settings.json", Proof: holds("{ws}/.claude/settings.json"),
		Expect: tiers(Limited, Denied), Limit: LimitAbsent, Says: "the run made {ws}/.claude/settings.json"},
	{Name: "an agent's settings by a renamed directory", Line: "mkdir c && echo {token} >c/settings.json && mv -T c .claude", Proof: holds("{ws}/.claude/settings.json"),
		Expect: tiers(Limited, Denied), Limit: LimitAbsent, Says: "the run made {ws}/.claude/settings.json"},
	{Name: ".bashrc", Line: "echo {token} >>{home}/.bashrc", Proof: changes("{home}/.bashrc")},
	{Name: ".profile where there is none", Line: "echo {token} >{home}/.profile", Proof: holds("{home}/.profile")},
	{Name: "a program for the user's PATH", Line: "mkdir -p {home}/.local/bin && echo {token} >{home}/.local/bin/ls", Proof: holds("{home}/.local/bin/ls")},
	{Name: "authorized_keys", Line: "echo {token} >>{home}/.ssh/authorized_keys", Proof: holds("{home}/.ssh/authorized_keys")},
	{Name: "the crontab's directory", Line: "echo {token} >/etc/cron.d/{key}; s=$?; cat /etc/cron.d/{key} && rm /etc/cron.d/{key}; exit $s", Proof: prints("{token}"), Who: "root"},
	{Name: "a shared build cache", Line: "echo {token} >{home}/.cache/go-build/poison", Proof: holds("{home}/.cache/go-build/poison"),
		Expect: both(Limited), Limit: LimitCaches},
}}

var secrets = Family{"Secrets", []Attack{
	{Name: "a file outside", Line: "cat {secret}", Proof: secretOut},
	{Name: "a file outside, through /proc/self/root", Line: "cat /proc/self/root{secret}", Proof: secretOut},
	{Name: "a file outside, by a symbolic link", Line: "ln -s {secret} s; cat s", Proof: secretOut},
	{Name: "a file outside, by a hard link", Line: "ln {secret} s && cat s", Proof: secretOut},
	{Name: "a file outside, by dots", Line: "cat ../out/secret", Proof: secretOut},
	{Name: "a file outside, moved in", Line: "mv {secret} s && cat s", Proof: secretOut},
	{Name: "a file outside, a mask lifted", Line: "./exec unmask {secret}", Proof: secretOut},
	{Name: "a directory outside", Line: "ls {out}", Proof: prints("secret")},
	{Name: "the environment", Line: "env; cat /proc/self/environ", Proof: secretOut},
	{Name: "an SSH key", Line: "cat {home}/.ssh/id_ed25519", Proof: secretOut},
	{Name: "cloud credentials", Line: "cat {home}/.aws/credentials", Proof: secretOut},
	{Name: "the history", Line: "cat {home}/.bash_history", Proof: secretOut},
	{Name: "the project's .env", Line: "cat .env", Proof: secretOut},
	{Name: "the project's .env renamed", Line: "mv .env e && cat e", Proof: secretOut},
	{Name: "the project's .env by a hard link", Line: "ln .env e && cat e", Proof: secretOut},
	{Name: "the project's .env, its directory renamed", Line: "mv {ws} {ws}2 && cat {ws}2/.env; s=$?; mv {ws}2 {ws}; exit $s", Proof: secretOut},
	{Name: "a linked .env", Line: "cat {linkedenv}", Proof: secretOut},
	{Name: "a linked .env by its target", Line: "cat sec/env; mv sec s && cat s/env; : {linkedenv}", Proof: secretOut},
	{Name: "a file that only root reads, set-user-ID", Line: "./suid-reader {rootsecret}", Proof: secretOut, Who: "user"},
	{Name: "a file that only root reads, file capability", Line: "./cap-reader {rootsecret}", Proof: secretOut, Who: "user"},
	{Name: "/etc/shadow", Line: "cut -d: -f1 /etc/shadow", Proof: prints("daemon"), Who: "root"},
	{Name: "the kernel's log", Line: "./system klog", Proof: prints("KERNEL-LOG-READ"), Who: "root"},
	{Name: "a core dump of the secret", Line: "ulimit -c unlimited; gcore -o core {victim} >/dev/null && grep -a secret- core.*", Proof: secretOut},
}}

// What only root may do ungoverned.
var machine = Family{"The machine", []Attack{
	{Name: "core_pattern", Line: "./system rewrite /proc/sys/kernel/core_pattern", Proof: prints("KERNEL-FILE-WRITTEN"), Who: "root"},
	{Name: "/proc/sys", Line: "./system rewrite /proc/sys/vm/swappiness", Proof: prints("KERNEL-FILE-WRITTEN"), Who: "root"},
	{Name: "/sys", Line: "./system rewrite /sys/kernel/rcu_expedited", Proof: prints("KERNEL-FILE-WRITTEN"), Who: "root"},
	{Name: "address layout of every process", Line: "./system rewrite /proc/sys/kernel/randomize_va_space", Proof: prints("KERNEL-FILE-WRITTEN"), Who: "root"},
	{Name: "a cgroup's release_agent", Line: "./system rewrite {cgroup}/release_agent", Proof: prints("KERNEL-FILE-WRITTEN"), Who: "root"},
	{Name: "out of the cgroup", Line: "./system cgroup {cgroup} {token}", Proof: prints("CGROUP-LEFT"), Who: "root"},
	{Name: "a device node of one's own", Line: "./system mknod /dev/kmsg", Proof: prints("DEVICE-OPEN"), Who: "root"},
	{Name: "/dev/kmsg", Line: "./system device /dev/kmsg", Proof: prints("DEVICE-OPEN"), Who: "root"},
	{Name: "/dev/fuse", Line: "./system device /dev/fuse", Proof: prints("DEVICE-OPEN"), Who: "root"},
	{Name: "chroot", Line: "./system chroot {out} /secret", Proof: secretOut, Who: "root"},
	{Name: "chroot and climb", Line: "./system chroot-climb {secret}", Proof: secretOut, Who: "root"},
	{Name: "pivot_root", Line: "./system pivot {out} /secret", Proof: secretOut, Who: "root"},
	{Name: "mount", Line: "./system mount", Proof: prints("MOUNTED"), Who: "root"},
	{Name: "mount a second /proc", Line: "./system proc", Proof: prints("MOUNTED"), Who: "root"},
	{Name: "fsopen and fsmount", Line: "./system fsopen", Proof: prints("MOUNTED"), Who: "root"},
	{Name: "unshare", Line: "./system namespaces", Proof: prints("NAMESPACES-MADE")},
	{Name: "unshare(1) as root of a namespace", Line: "unshare -Urm bash -c 'mount -t tmpfs none /mnt && echo MOUNTED'", Proof: prints("MOUNTED")},
	{Name: "bwrap inside", Line: "bwrap --dev-bind / / cat {secret}", Proof: secretOut},
	{Name: "clock_settime", Line: "./system clock", Proof: prints("CLOCK-SET"), Who: "root"},
	{Name: "adjtimex", Line: "./system adjtimex", Proof: prints("CLOCK-SET"), Who: "root"},
	{Name: "sethostname", Line: "./system hostname", Proof: prints("HOSTNAME-SET"), Who: "root"},
	{Name: "reboot", Line: "./system reboot", Proof: prints("REBOOT-SET"), Who: "root"},
	{Name: "acct", Line: "./system acct", Proof: prints("ACCOUNTING-SET"), Who: "root"},
	{Name: "another uid", Line: "./system setuid", Proof: prints("UID-CHANGED"), Who: "root"},
	{Name: "su", Line: "su -s /bin/sh nobody -c 'id -u'", Proof: prints("65534"), Who: "root"},
	{Name: "real-time priority", Line: "./system realtime", Proof: prints("REAL-TIME"), Who: "root"},
	{Name: "typing into the terminal", Line: "./system tiocsti {token}", Proof: prints("SHELL-READ:{token}"), Terminal: true},
}}

// {shmfile} is a file of somebody outside in /dev/shm; {shmkey}, {msgkey} and
// {mq} are a segment and queues that hold the secret.
var sharedMemory = Family{"Shared memory", []Attack{
	{Name: "/dev/shm read", Line: "cat {shmfile}", Proof: secretOut},
	{Name: "/dev/shm written", Line: "echo {token} >{shmfile}", Proof: changes("{shmfile}"), Expect: both(Stopped)},
	{Name: "/dev/shm removed", Line: "rm -f {shmfile}", Proof: changes("{shmfile}"), Expect: both(Stopped)},
	{Name: "another terminal written", Line: "echo {token} >{pts}", Proof: hears("{token}")},
	{Name: "another terminal's keys", Line: "exec 3<>{pts}; head -1 <&3", Proof: secretOut},
	{Name: "System V shared memory", Line: "./system shm {shmkey}", Proof: secretOut},
	{Name: "System V messages", Line: "./system msg {msgkey}", Proof: secretOut},
	{Name: "POSIX messages", Line: "./system mq {mq}", Proof: secretOut},
}}

// Nothing outlives its execution, and quotas bound what it takes.
var kill = Family{"Kill that doesn't", []Attack{
	{Name: "setsid", Line: "./linger setsid {token}", Proof: survives, Expect: both(Killed)},
	{Name: "a double fork", Line: "./linger twice {token}", Proof: survives, Expect: both(Killed)},
	{Name: "deaf to signals", Line: "./linger deaf {token}", Proof: survives, Expect: both(Killed)},
	{Name: "below a vfork", Line: "./linger vfork {token}", Proof: survives, Expect: both(Killed)},
	{Name: "stopped", Line: "./linger stopped {token}", Proof: survives, Expect: both(Killed)},
	{Name: "a subreaper", Line: "./linger adopt {token}", Proof: survives, Expect: both(Killed)},
	{Name: "forks faster than it is killed", Line: "./linger chase {token}", Proof: survives, Expect: both(Killed)},
	{Name: "nohup in the background", Line: "nohup setsid ./linger wait {token} >/dev/null 2>&1 & disown", Proof: survives, Expect: both(Killed)},
	{Name: "a daemon by Python", Line: `python3 -c 'import os, sys, signal
if os.fork() == 0:
    os.setsid()
    for f in 0, 1, 2: os.close(f)
    signal.pause()' {token}`, Proof: survives, Expect: both(Killed)},
	{Name: "the supervisor killed", Line: "./linger wait {token}", Proof: survives, Expect: both(Killed), Then: "crash"},
	{Name: "the supervisor killed, all stopped", Line: "./linger wait-stopped {token}", Proof: survives, Expect: both(Killed), Then: "crash"},
	{Name: "revoked", Line: "./linger wait {token}", Proof: survives, Expect: both(Killed), Then: "revoke"},
	{Name: "revoked, all stopped", Line: "./linger wait-stopped {token}", Proof: survives, Expect: both(Killed), Then: "revoke"},
	{Name: "a fork bomb", Line: "./linger bomb 400", Proof: prints("FORKED-ALL"), Expect: both(Stopped), Quotas: quota{Processes: 40}},
	{Name: "a flood of output", Line: "./linger flood 20000000", Proof: prints("FLOODED-ALL"), Expect: both(Limited), Limit: LimitResources, Quotas: quota{OutputBytes: 1 << 20}},
	{Name: "longer than its time", Line: "./linger long 7000", Proof: prints("OUTSTAYED"), Expect: both(Killed), Quotas: quota{WallSeconds: 2}},
	{Name: "more memory than its share", Line: "./linger hog 400000000", Proof: prints("MEMORY-TAKEN"), Quotas: quota{MemoryBytes: 200 << 20}},
	{Name: "a larger file than its share", Line: "./linger bigfile 4000000", Proof: prints("BIG-FILE-MADE"), Quotas: quota{FileBytes: 1 << 20}},
	{Name: "more programs than its share", Line: "for i in $(seq 400); do /usr/bin/true || exit; done; echo RAN-ALL", Proof: prints("RAN-ALL"), Quotas: quota{Execs: 40}},
	{Name: "knocking until something opens", Line: "for i in $(seq 60); do {tool}; done 2>/dev/null; sleep 3; echo KNOCKED-ALL", Proof: prints("KNOCKED-ALL"), Policy: noTool, Expect: both(Killed), Quotas: quota{Denials: 40}},
}}
