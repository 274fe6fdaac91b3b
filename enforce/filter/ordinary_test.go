//go:build linux

package filter

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ordinary programs do ordinary things under the filter. A row runs only where
// its first word is installed.
var ordinary = [][]string{
	{"sh", "-c", `echo a | cat | grep -q a && (cd / && ls >/dev/null) && x=$(date) && test -n "$x"`},
	{"bash", "-c", `set -m; sleep 0 & wait; cat <(echo a) <<<b >/dev/null; trap : USR1; kill -USR1 $$; ulimit -n 64; umask 022`},
	{"git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "init", "-q", "repository"},
	{"sh", "-c", `git init -q r && cd r && git config user.name a && git config user.email a@b && echo x >f && git add f && git commit -qm x && git log | cat && git gc -q && git clone -q . ../r2 && git init -q --shared ../r3`},
	{"make", "-f", "-", "-j2"},
	{"gcc", "-x", "c", "-pthread", "-o", "hello", "-"},
	{"go", "env", "GOOS"},
	{"sh", "-c", `printf 'module m\n' >go.mod; printf 'package main\nfunc main() { println("hello") }\n' >main.go; go run .`},
	{"python3", "-c", `
import subprocess, threading, multiprocessing, socket, tempfile, os, mmap, select, asyncio, time, signal
assert subprocess.run(["true"]).returncode == 0
t = threading.Thread(target=lambda: None); t.start(); t.join()
with multiprocessing.get_context("fork").Pool(2) as p: assert p.map(abs, [-1]) == [1]
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen()
c = socket.create_connection(l.getsockname()); c.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.getaddrinfo("localhost", 80)
m = mmap.mmap(-1, 4096); m[0] = 1
asyncio.run(asyncio.create_subprocess_exec("true"))
with tempfile.TemporaryDirectory() as d:
  os.symlink("x", d + "/y"); os.mkfifo(d + "/f"); os.link(d + "/f", d + "/z")
  s = socket.socket(socket.AF_UNIX); s.bind(d + "/s"); s.listen()
os.getrandom(8); os.sched_getaffinity(0); os.nice(0); time.clock_gettime(0); signal.alarm(0)
`},
	{"node", "-e", `
const cp = require("child_process"), os = require("os"), fs = require("fs"), net = require("net"), wt = require("worker_threads");
cp.execFileSync("true"); os.networkInterfaces(); os.cpus(); fs.mkdtempSync("./x"); new WebAssembly.Memory({initial: 1});
const s = net.createServer().listen(0, "127.0.0.1", () => net.connect(s.address().port).on("connect", function () { this.destroy(); s.close() }));
new wt.Worker("", {eval: true}); fs.promises.readFile("/etc/passwd"); require("dns").lookup("localhost", () => {});
`},
	{"perl", "-e", `system("true") == 0 or die; my $p = fork // die; exit 0 unless $p; waitpid($p, 0); open(my $f, "<", "/etc/passwd") or die`},
	{"java", "-version"},
	{"sqlite3", "db", "pragma journal_mode=wal; create table t(x); insert into t values(1); select * from t;"},
	{"tar", "-cf", "t.tar", "/etc/hostname"},
	{"sh", "-c", `mkdir -p t/d && chmod 2755 t/d && tar -C t -cf t.tar d && mkdir -p o && tar -C o -xpf t.tar && cp -a t t2 && mv t2 t3 && rm -r t3`},
	{"find", "/etc", "-maxdepth", "1", "-name", "host*", "-exec", "true", "{}", "+"},
	{"script", "-qc", "stty -a; tty", "typescript"},
	{"vim", "-es", "-c", "q"},
	{"sh", "-c", `tmux -L exeq-filter-test -f /dev/null new-session -d true; sleep 0`},
	{"curl", "--version"},
	{"npm", "--version"},
	{"ps", "aux"},
	{"sudo", "--version"},
	{"setarch", "-R", "true"},
	{"timeout", "5", "nice", "-n", "1", "ionice", "-c3", "taskset", "1", "true"},
	{"xargs", "-P2", "-n1", "true"},
	{"flock", "lock", "true"},
	{"mktemp", "-d", "-p", "."},
	{"dd", "if=/dev/zero", "of=zeros", "bs=64k", "count=4", "conv=fsync", "status=none"},
	{"openssl", "version"},
	{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"},
	{"getent", "hosts", "localhost"},
}

var stdin = map[string]string{
	"make":  "all: a b\na b:\n\t@echo $@\n",
	"gcc":   "#include <pthread.h>\n#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n",
	"xargs": "a b c d",
}

func TestOrdinaryPrograms(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for i, argv := range ordinary {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			t.Logf("%s is not installed", argv[0])
			continue
		}
		t.Run(fmt.Sprint(i, " ", argv[0]), func(t *testing.T) {
			run := func(mode string) ([]byte, error) {
				cmd := exec.Command(exe, append([]string{path}, argv[1:]...)...)
				cmd.Env = append(os.Environ(), victimEnv+"="+mode, "GOFLAGS=-mod=mod", "GOPROXY=off", "TERM=xterm")
				cmd.Dir = t.TempDir()
				cmd.Stdin = strings.NewReader(stdin[argv[0]])
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				return out.Bytes(), err
			}
			out, err := run("exec-governed")
			if err == nil {
				ran++
				return
			}
			if plain, plainErr := run("exec-control"); plainErr != nil {
				t.Skipf("fails without the filter, too: %v\n%s", plainErr, plain)
			}
			t.Errorf("%q: %v\n%s", argv, err, out)
		})
	}
	if ran < 10 {
		t.Errorf("only %d programs ran", ran)
	}
}

// execVictim becomes the program in the arguments, under the filter of the
// rootless tier without its notifications.
func execVictim(governed bool) {
	runtime.LockOSThread()
	if governed {
		install(Options{Inet: true, PrivateNet: true, Unix: true})
	}
	err := unix.Exec(os.Args[1], os.Args[1:], os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}
