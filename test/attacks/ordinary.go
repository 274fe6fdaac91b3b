package attacks

// Ordinary is work that the starter policy must not block.
type Ordinary struct {
	Name string
	// Line is for bash, in an empty workspace.
	Line string
	// Lived says that the workspace is a repository with everything in it that
	// policy protects, not an empty directory.
	Lived bool
	// Want stands in what it prints.
	Want string
	// Limits name the honest limits that block it, each in the tiers that the
	// list of limits gives for it.
	Limits []string
	// Program must be installed, else there is nothing to block.
	Program string
}

// OrdinaryWork is what people and agents do all day.
var OrdinaryWork = []Ordinary{
	{Name: "a pipeline", Line: `seq 9 | grep -v 5 | sort -rn | head -3 | tr '\n' ,`, Want: "9,8,7,"},
	{Name: "the status inside a pipeline", Line: `set -o pipefail; false | cat; echo $?`, Want: "1"},
	{Name: "a subshell", Line: `(cd /tmp && pwd); pwd`, Want: "/tmp"},
	{Name: "a heredoc", Line: "cat <<E\nin here\nE", Want: "in here"},
	{Name: "background jobs", Line: `sleep 0.1 & sleep 0.1 & wait; jobs; echo done`, Want: "done"},
	{Name: "a job killed", Line: `sleep 60 & kill %1; wait %1; echo $?`, Want: "143"},
	{Name: "job control", Line: `set -m; sleep 0.1 & fg; echo back`, Want: "back"},
	{Name: "process substitution", Line: `diff <(seq 3) <(seq 4) | grep -c 4`, Want: "2"},
	{Name: "a coprocess", Line: `coproc cat; echo over >&${COPROC[1]}; read -r x <&${COPROC[0]}; echo $x`, Want: "over"},
	{Name: "a trap", Line: `trap 'echo caught' USR1; kill -USR1 $$; echo on`, Want: "caught"},
	{Name: "an exit trap", Line: `trap 'rm -f x; echo cleaned' EXIT; touch x`, Want: "cleaned"},
	{Name: "a timeout", Line: `timeout 0.2 sleep 9; echo $?`, Want: "124"},
	{Name: "exit status", Line: `bash -c 'exit 42'; echo $?`, Want: "42"},
	{Name: "standard input", Line: `echo fed | { read -r x; echo $x; }`, Want: "fed"},
	{Name: "a large pipe", Line: `head -c 50000000 /dev/zero | wc -c`, Want: "50000000"},
	{Name: "a broken pipe", Line: `yes | head -1`, Want: "y"},
	{Name: "a named pipe", Line: `mkfifo p; echo through >p & cat p`, Want: "through"},
	{Name: "a thousand programs", Line: `for i in $(seq 1000); do /bin/true; done; echo all`, Want: "all"},
	{Name: "temporary files", Line: `f=$(mktemp); d=$(mktemp -d); echo x >$f; mv $f $d; ls $d | wc -l; rm -r $d`, Want: "1"},
	{Name: "files and directories", Line: `mkdir -p a/b/c; touch a/b/c/f; cp -r a z; mv z y; rm -r a; find y -type f`, Want: "y/b/c/f"},
	{Name: "symbolic links", Line: `echo x >f; ln -s f l; readlink l; cat l; rm l`, Want: "x"},
	{Name: "hard links", Line: `echo x >f; ln f g; stat -c %h f`, Want: "2"},
	{Name: "modes and times", Line: `touch -d 2001-02-03 f; chmod 640 f; stat -c '%a %y' f`, Want: "640 2001-02-03"},
	{Name: "sparse and large files", Line: `truncate -s 1G f; fallocate -l 1M g; stat -c %s f g`, Want: "1073741824"},
	{Name: "a lock", Line: `flock l bash -c 'flock -n l echo again || echo locked'`, Want: "locked"},
	{Name: "find and xargs", Line: `for i in 1 2 3; do echo $i >$i.t; done; find . -name '*.t' -print0 | xargs -0 -n1 -P2 cat | sort | tr -d '\n'`, Want: "123"},
	{Name: "find -exec", Line: `touch a b; find . -type f -exec basename {} ';' | sort | tr -d '\n'`, Want: "ab"},
	{Name: "sed in place", Line: `echo old >f; sed -i s/old/new/ f; cat f`, Want: "new"},
	{Name: "perl in place", Line: `echo old >f; perl -pi -e s/old/new/ f; cat f`, Want: "new", Program: "perl"},
	{Name: "ed", Limits: []string{LimitTmp}, Line: `printf 'a\nline\n.\nw f\nq\n' | ed -s; cat f`, Want: "line", Program: "ed"},
	{Name: "vim", Line: `echo old >f; vim -Nu NONE -n -es -c '%s/old/new/' -c wq f; cat f`, Want: "new", Program: "vim"},
	{Name: "vim with a swap file", Line: `echo old >f; vim -Nu NONE -es -c '%s/old/new/' -c wq f; cat f`, Want: "new", Program: "vim"},
	{Name: "awk", Line: `seq 10 | awk '{s += $1} END {print s}'`, Want: "55"},
	{Name: "patch", Line: `echo a >f; echo b >g; diff -u f g | patch -s f; cat f`, Want: "b", Program: "patch"},
	{Name: "tar", Line: `mkdir d; echo x >d/f; tar czf a.tgz d; rm -r d; tar xzf a.tgz; cat d/f`, Want: "x"},
	{Name: "zip", Line: `echo x >f; zip -q a f; rm f; unzip -q a; cat f`, Want: "x", Program: "zip"},
	{Name: "grep -r", Line: `mkdir d; echo needle >d/f; grep -rl needle .`, Want: "d/f"},
	{Name: "ps sees its own", Line: `sleep 5 & ps -o comm= --ppid $$ | grep -c sleep; kill $!`, Want: "1", Program: "ps"},
	{Name: "the machine's size", Line: `nproc; grep -c MemTotal /proc/meminfo; df . | tail -1 | wc -l`, Want: "1"},
	{Name: "locale", Line: `LC_ALL=C.UTF-8 bash -c 'x=äöü; echo ${#x}'`, Want: "3"},
	{Name: "time zones", Line: `TZ=Asia/Tokyo date -d @0 +%H`, Want: "09"},
	{Name: "users and groups", Line: `id -un; getent passwd root | cut -d: -f1`, Want: "root"},
	{Name: "a terminal of its own", Line: `script -qec 'tty && stty size' /dev/null`, Want: "/dev/pts/", Program: "script"},
	{Name: "git init and commit", Line: git + `echo x >f; git add f; git commit -qm one; git log --oneline | wc -l`, Want: "1", Program: "git"},
	{Name: "git branch and merge", Line: git + `git commit -qm a --allow-empty; git checkout -qb b; echo x >f; git add f; git commit -qm b; git checkout -q main; git merge -q b; git log --format=%s -1`, Want: "b", Program: "git"},
	{Name: "git rebase", Line: git + `git commit -qm a --allow-empty; git checkout -qb b; echo x >f; git add f; git commit -qm b; git checkout -q main; echo y >g; git add g; git commit -qm c; git rebase -q main b; git log --format=%s | tr -d '\n'`, Want: "bca", Program: "git"},
	{Name: "git stash and diff", Line: git + `echo x >f; git add f; git commit -qm a; echo y >f; git stash -q; git stash pop -q; git diff --stat`, Want: "1 file changed", Program: "git"},
	{Name: "git clone of a local repository", Line: git + `git commit -qm a --allow-empty; cd ..; git clone -q r s; git -C s log --format=%s`, Want: "a", Program: "git"},
	{Name: "git worktree and gc", Line: git + `git commit -qm a --allow-empty; git worktree add -q ../w; git gc -q; git -C ../w status -sb`, Want: "## w", Program: "git"},
	{Name: "git init in the workspace itself", Line: `git init -q -b main . && echo x >f && git add f && git -c user.name=n -c user.email=e commit -qm a && git status -sb`, Want: "## main", Program: "git"},
	{Name: "make", Line: `printf 'a: b\n\tcp b a\nb:\n\techo made >b\n' >Makefile; make -s; cat a`, Want: "made", Program: "make"},
	{Name: "make -j", Line: `printf 'all: 1 2 3 4\n%%:\n\t@echo $@ >$@\n' >Makefile; make -sj4; cat 1 2 3 4 | tr -d '\n'`, Want: "1234", Program: "make"},
	{Name: "gcc, and what it made", Line: hello + `gcc -O2 h.c -o h && ./h`, Want: "hello", Program: "gcc"},
	{Name: "rebuilt and run again", Line: hello + `gcc h.c -o h && ./h && sed -i s/hello/again/ h.c && gcc h.c -o h && ./h`, Want: "again", Program: "gcc"},
	{Name: "rebuilt while it runs", Line: `printf '#include <unistd.h>\nint main(void) { return sleep(20); }\n' >s.c; gcc s.c -o s && ./s & p=$!; while ! pgrep -x s >/dev/null; do :; done; ` + hello + `gcc h.c -o n && mv n s && ./s; kill $p; pkill -x s; true`, Want: "hello", Program: "gcc"},
	{Name: "a shared library of its own", Line: `echo 'int f(void) { return 42; }' >f.c; printf '#include <stdio.h>\nint f(void);\nint main(void) { printf("%%d", f()); }\n' >m.c; gcc -shared -fPIC f.c -o libf.so && gcc m.c -L. -lf -o m && LD_LIBRARY_PATH=. ./m`, Want: "42", Program: "gcc"},
	{Name: "a library by ctypes", Line: `echo 'int f(void) { return 42; }' >f.c; gcc -shared -fPIC f.c -o f.so; python3 -c 'import ctypes; print(ctypes.CDLL("./f.so").f())'`, Want: "42", Program: "python3"},
	{Name: "a debugger's file", Line: hello + `gcc -g h.c -o h && nm h | grep -c ' main$'`, Want: "1", Program: "gcc"},
	{Name: "go build", Line: gohello + `go build -o h . && ./h`, Want: "hello", Program: "go"},
	{Name: "go run", Line: gohello + `go run .`, Want: "hello", Program: "go"},
	{Name: "go test", Line: gohello + `printf 'package main\nimport "testing"\nfunc TestX(t *testing.T) { t.TempDir() }\n' >h_test.go; go test . && go test -count=1 .`, Want: "ok", Program: "go"},
	{Name: "go vet and fmt", Line: gohello + `go vet . && gofmt -l . && go list .`, Want: "example.com/h", Program: "go"},
	{Name: "cargo build and run", Line: `cargo new -q --vcs none h && cd h && cargo run -q --offline`, Want: "Hello, world!", Program: "cargo"},
	{Name: "rustc", Line: `echo 'fn main() { println!("hello") }' >h.rs; rustc h.rs && ./h`, Want: "hello", Program: "rustc"},
	{Name: "a script with a shebang", Line: `printf '#!/usr/bin/env bash\necho ran\n' >s; chmod +x s; ./s`, Want: "ran"},
	{Name: "python", Line: `python3 -c 'import json, hashlib, ssl; print(json.dumps({"a": 1}))'`, Want: `{"a": 1}`, Program: "python3"},
	{Name: "python subprocess", Line: `python3 -c 'import subprocess; print(subprocess.run(["sh", "-c", "echo sub"], capture_output=True, text=True).stdout)'`, Want: "sub", Program: "python3"},
	{Name: "python threads and processes", Line: `python3 -c 'import concurrent.futures as c
with c.ProcessPoolExecutor(2) as p: print(sum(p.map(abs, [-1, -2])))'`, Want: "3", Program: "python3"},
	{Name: "python unittest", Line: `printf 'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertTrue(True)\n' >test_x.py; python3 -m unittest 2>&1`, Want: "OK", Program: "python3"},
	{Name: "python venv", Line: `python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix)'`, Want: "/v", Program: "python3"},
	{Name: "python shared memory", Line: `python3 -c 'from multiprocessing import shared_memory as s
m = s.SharedMemory(create=True, size=64); print(m.size); m.unlink()'`, Want: "64", Program: "python3"},
	{Name: "python sqlite", Line: `python3 -c 'import sqlite3; d = sqlite3.connect("d"); d.execute("create table t(a)"); d.commit(); print("made")'`, Want: "made", Program: "python3"},
	{Name: "a socket pair", Line: `python3 -c 'import socket; a, b = socket.socketpair(); a.send(b"pair"); print(b.recv(9))'`, Want: "pair", Program: "python3"},
	{Name: "a unix socket of its own", Limits: []string{LimitUnixSockets}, Line: `python3 -c 'import socket
s = socket.socket(socket.AF_UNIX); s.bind("s"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect("s"); c.send(b"own"); print(s.accept()[0].recv(9))'`, Want: "own", Program: "python3"},
	{Name: "a loopback server of its own", Limits: []string{LimitListeners}, Line: `python3 -c 'import http.server, threading, urllib.request
s = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
o = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(o.open("http://127.0.0.1:%d/" % s.server_port).status)'`, Want: "200", Program: "python3"},
	{Name: "a loopback server on a port by number", Limits: []string{LimitListeners, LimitPorts}, Line: `python3 -c 'import socket
p = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
s = socket.create_server(("127.0.0.1", p)); c = socket.create_connection(("127.0.0.1", p)); c.send(b"by number"); print(s.accept()[0].recv(9))'`, Want: "by number", Program: "python3"},
	{Name: "datagrams on loopback", Limits: []string{LimitListeners, LimitPorts}, Line: `python3 -c 'import socket
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0))
c = socket.socket(type=socket.SOCK_DGRAM); c.sendto(b"datagram", s.getsockname()); print(s.recv(9))'`, Want: "datagram", Program: "python3"},
	{Name: "datagrams over a connected socket", Limits: []string{LimitListeners}, Line: `python3 -c 'import socket
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0))
c = socket.socket(type=socket.SOCK_DGRAM); c.connect(s.getsockname()); c.send(b"datagram"); print(s.recv(9))'`, Want: "datagram", Program: "python3"},
	{Name: "node", Line: `node -e 'console.log([3, 1, 2].sort().join(""))'`, Want: "123", Program: "node"},
	{Name: "node child_process", Line: `node -e 'require("child_process").exec("echo child", (e, o) => console.log(o))'`, Want: "child", Program: "node"},
	{Name: "node workers", Line: `node -e 'const {Worker} = require("worker_threads"); new Worker("console.log(\"worker\")", {eval: true})'`, Want: "worker", Program: "node"},
	{Name: "node server and client", Limits: []string{LimitListeners}, Line: `node -e 'const h = require("http"); const s = h.createServer((q, r) => r.end("served")).listen(0, "127.0.0.1", () => h.get({port: s.address().port, host: "127.0.0.1"}, r => r.on("data", d => { console.log("" + d); s.close() })))'`, Want: "served", Program: "node"},
	{Name: "npm run", Line: `echo '{"name": "a", "version": "1.0.0", "scripts": {"x": "node -p 6*7"}}' >package.json; npm run -s x`, Want: "42", Program: "npm"},
	{Name: "npm test", Line: `echo '{"name": "a", "version": "1.0.0", "scripts": {"test": "node --test"}}' >package.json; echo 'require("node:test")("t", () => {})' >a.test.js; npm test 2>&1`, Want: "pass 1", Program: "npm"},
	{Name: "npm install from a tarball", Line: `mkdir p; echo '{"name": "p", "version": "1.0.0", "main": "i.js"}' >p/package.json; echo 'module.exports = 42' >p/i.js; (cd p && npm pack -s >/dev/null); echo '{"name": "a", "version": "1.0.0"}' >package.json; npm install -s --offline ./p/p-1.0.0.tgz && node -p 'require("p")'`, Want: "42", Program: "npm"},
	{Name: "sqlite3", Line: `sqlite3 d 'create table t(a); insert into t values(42);'; sqlite3 d 'select a from t'`, Want: "42", Program: "sqlite3"},
	{Name: "sqlite3 in WAL mode", Line: `sqlite3 d 'pragma journal_mode=wal; create table t(a); insert into t values(42); select a from t;'`, Want: "42", Program: "sqlite3"},
	{Name: "jq", Line: `echo '{"a": [1, 2]}' | jq -c .a`, Want: "[1,2]", Program: "jq"},
	{Name: "bc and factor", Line: `echo 2^64 | bc; factor 91`, Want: "18446744073709551616", Program: "bc"},
	{Name: "watching files", Line: `python3 -c 'import ctypes, os
l = ctypes.CDLL(None); f = l.inotify_init(); l.inotify_add_watch(f, b".", 0x100); open("new", "w"); print(os.read(f, 999)[16:19])'`, Want: "new", Program: "python3"},
	{Name: "a tmux session", Limits: []string{LimitUnixSockets}, Line: `tmux -S ./t new-session -d 'sleep 30' && tmux -S ./t ls; tmux -S ./t kill-server`, Want: "1 windows", Program: "tmux"},
	{Name: "memory mapped files", Line: `python3 -c 'import mmap; f = open("m", "wb+"); f.write(b"x" * 4096); f.flush(); m = mmap.mmap(f.fileno(), 0); m[0:3] = b"map"; m.flush(); print(open("m").read(3))'`, Want: "map", Program: "python3"},
	{Name: "compression", Line: `seq 99999 >f; for c in gzip xz bzip2; do $c -k f; done; zcat f.gz | tail -1`, Want: "99999"},
	{Name: "checksums", Line: `echo x >f; sha256sum f >s; sha256sum -c s`, Want: "OK"},
	{Name: "openssl", Line: `openssl rand -hex 4 | wc -c`, Want: "9", Program: "openssl"},
	{Name: "in a repository: edit and commit", Lived: true, Line: `sed -i s/hello/again/ h.c; echo x >new; mkdir -p d/e; mv new d/e; git add .; git -c user.name=n -c user.email=e commit -qm two; git status --porcelain | wc -l; git log --format=%s -1`, Want: "two", Program: "git"},
	{Name: "in a repository: branch, merge, stash", Lived: true, Line: `export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e; git checkout -qb b && echo x >f && git add f && git commit -qm b && git checkout -q main && git merge -q b && echo y >f && git stash -q && git stash pop -q && git diff --stat`, Want: "1 file changed", Program: "git"},
	{Name: "in a repository: rebase", Lived: true, Line: `export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e; git checkout -qb b && echo x >f && git add f && git commit -qm b && git checkout -q main && echo y >g && git add g && git commit -qm c && git rebase -q main b && git log --format=%s | tr -d '\n'`, Want: "bcone", Program: "git"},
	{Name: "in a repository: build and run", Lived: true, Line: `gcc h.c -o h && ./h && rm h`, Want: "hello", Program: "gcc"},
	{Name: "in a repository: rebuild and run", Lived: true, Line: `gcc h.c -o h && ./h && sed -i s/hello/again/ h.c && gcc h.c -o h && ./h`, Want: "again", Program: "gcc"},
	{Name: "in a repository: build in a directory", Lived: true, Line: `mkdir -p out/bin && gcc h.c -o out/bin/h && out/bin/h && rm -r out`, Want: "hello", Program: "gcc"},
	{Name: "in a repository: a script of its own", Lived: true, Line: `printf '#!/bin/sh\necho ran\n' >s; chmod +x s; ./s`, Want: "ran"},
	{Name: "in a repository: make, and what it made", Lived: true, Line: `printf 'all: h out/t\n\t./h && out/t\nh: h.c\n\tgcc $< -o $@\nout/t: h.c\n\tmkdir -p out && gcc $< -o $@\n' >Makefile; make -s && touch h.c && make -s | wc -l`, Want: "2", Program: "gcc"},
	{Name: "in a repository: a library of its own", Lived: true, Line: `echo 'int f(void) { return 42; }' >f.c; printf '#include <stdio.h>\nint f(void);\nint main(void) { printf("%%d", f()); }\n' >m.c; gcc -shared -fPIC f.c -o libf.so && gcc m.c -L. -lf -o m && LD_LIBRARY_PATH=. ./m`, Want: "42", Program: "gcc"},
	{Name: "in a repository: a native addon", Lived: true, Line: `mkdir -p node_modules/a && echo 'void *napi_register_module_v1(void *env, void *exports) { return exports; }' >a.c && gcc -shared -fPIC a.c -o node_modules/a/a.node && echo 'module.exports = require("./a.node")' >node_modules/a/index.js && node -p 'typeof require("a")'`, Want: "object", Program: "node"},
	{Name: "in a repository: a package's program", Lived: true, Line: `mkdir p; echo '{"name": "p", "version": "1.0.0", "bin": {"p": "i.js"}, "scripts": {"postinstall": "gcc -o it h.c && ./it"}}' >p/package.json; printf '#!/usr/bin/env node\nconsole.log("ran it")\n' >p/i.js; cp h.c p; echo '{"name": "a", "version": "1.0.0", "scripts": {"s": "p"}}' >package.json; npm install -s --offline --install-links ./p && npm run -s s && node_modules/p/it`, Want: "ran it", Program: "npm"},
	{Name: "in a repository: go build and run", Lived: true, Line: gohello + `rm h.c; go build -o x . && ./x && sed -i s/hello/again/ h.go && go build -o x . && ./x && go run .`, Want: "again", Program: "go"},
	{Name: "in a repository: go test", Lived: true, Line: `rm h.c; ` + gohello + `mkdir q; printf 'package q\nimport "testing"\nfunc TestX(t *testing.T) { t.TempDir() }\n' >q/q_test.go; go vet ./... && go test ./... && go test -c -o q/t ./q && q/t`, Want: "PASS", Program: "go"},
	{Name: "in a repository: a virtual environment", Lived: true, Line: `python3 -m venv --without-pip --copies .venv && .venv/bin/python -c 'import sys; print(sys.prefix)'`, Want: "/.venv", Program: "python3"},
	{Name: "in a repository: npm install", Lived: true, Line: `mkdir p; echo '{"name": "p", "version": "1.0.0", "main": "i.js"}' >p/package.json; echo 'module.exports = 42' >p/i.js; echo '{"name": "a", "version": "1.0.0"}' >package.json; npm install -s --offline ./p && node -p 'require("p")'`, Want: "42", Program: "npm"},
	{Name: "in a repository: go build", Lived: true, Line: `mkdir g; cd g; ` + gohello + `go vet . && go build && go list .`, Want: "example.com/h", Program: "go"},
	{Name: "in a repository: read the settings", Lived: true, Line: `cat .vscode/tasks.json .envrc .git/config | grep -c main; git config -l | head -1`, Want: "="},
	{Name: "reading what is installed", Line: `dpkg -s bash | grep Status; man -w bash >/dev/null 2>&1; ls /etc | wc -l`, Want: "install ok", Program: "dpkg"},
}

const (
	git     = `git init -q -b main r; cd r; git config user.name n; git config user.email e; `
	hello   = `printf '#include <stdio.h>\nint main(void) { puts("hello"); }\n' >h.c; `
	gohello = `printf 'module example.com/h\n' >go.mod; printf 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n' >h.go; `
)
