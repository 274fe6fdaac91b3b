// Processes that want to outlive their execution. Each survivor carries the
// token in its command line, which is how the harness finds it.
#include "attack.h"
#include <poll.h>
#include <sched.h>
#include <sys/uio.h>

static void survive(void) {
	for (;;) poll(NULL, 0, 60000);
}
static void detach(void) {
	close(0), close(1), close(2);
	survive();
}
static void setsid_(char **a) {
	(void)a;
	if (TRY(fork())) return;
	TRY(setsid());
	detach();
}
static void twice(char **a) { // fork, setsid, fork
	(void)a;
	if (TRY(fork())) return;
	TRY(setsid());
	if (TRY(fork())) _exit(0);
	detach();
}
static void deaf(char **a) { // every signal that can be is ignored
	(void)a;
	if (TRY(fork())) return;
	for (int i = 1; i < 65; i++) signal(i, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, 0);
	setsid();
	detach();
}
static void vfork_(char **a) { // from a parent that the kernel holds still
	(void)a;
	if (TRY(fork())) return;
	if (vfork() == 0) {
		setsid();
		detach();
	}
	survive();
}
static void stopped(char **a) { // a stopped process does nothing, not even die
	(void)a;
	pid_t p = TRY(fork());
	if (p) {
		int st;
		waitpid(p, &st, WUNTRACED);
		return;
	}
	setsid();
	close(0), close(1), close(2);
	raise(SIGSTOP);
	survive();
}
static void adopt(char **a) { // orphans come to me, not to process 1
	(void)a;
	if (TRY(fork())) return;
	TRY(prctl(PR_SET_CHILD_SUBREAPER, 1));
	setsid();
	if (TRY(fork()) == 0) {
		if (fork() == 0) detach();
		_exit(0);
	}
	detach();
}
static void chase(char **a) { // be somebody else before the kill arrives
	(void)a;
	if (TRY(fork())) return;
	setsid();
	close(0), close(1), close(2);
	for (int i = 0;; i++) { // a generation lives ten milliseconds
		pid_t p = fork();
		if (p > 0) _exit(0);
		if (i > 500) survive();
		poll(NULL, 0, 10);
	}
}
// wait_here stays in the foreground with a detached child, for ends that come from outside.
static void wait_here(char **a) {
	twice(a);
	ready();
	survive();
}
static void wait_stopped(char **a) {
	twice(a);
	ready();
	raise(SIGSTOP);
	survive();
}
static void bomb(char **a) { // how many, each waiting
	int n = atoi(a[0]), i, failed = 0;
	for (i = 0; i < n; i++) {
		pid_t p = fork();
		if (p == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			survive();
		}
		if (p < 0) {
			failed = 1;
			break;
		}
	}
	if (failed) refused("fork");
	poll(NULL, 0, 4000); // longer than a tick
	printf("FORKED-ALL\n");
	fflush(stdout);
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
}
static void flood(char **a) { // bytes on stdout, then the word
	static char line[65536];
	memset(line, '#', sizeof line);
	for (long n = atol(a[0]); n > 0; n -= sizeof line) TRY(write(1, line, sizeof line));
	won("\nFLOODED-ALL");
}
static void long_(char **a) { // milliseconds, then the word
	poll(NULL, 0, atoi(a[0]));
	won("OUTSTAYED");
}
static void descriptors(char **a) { // eat the machine's file table
	int n = 0, max = atoi(a[0]);
	while (n < max && dup(2) >= 0) n++;
	if (n < max) refused("dup");
	won("DESCRIPTORS-TAKEN");
}
static void bigfile(char **a) {
	int fd = TRY(open("big", O_CREAT | O_WRONLY, 0644));
	signal(SIGXFSZ, SIG_IGN);
	TRY(ftruncate(fd, atol(a[0])));
	TRY(pwrite(fd, "x", 1, atol(a[0])));
	won("BIG-FILE-MADE");
}
static void reserve(char **a) { // the same without writing a byte
	int fd = TRY(open("big", O_CREAT | O_WRONLY, 0644));
	signal(SIGXFSZ, SIG_IGN);
	TRY(fallocate(fd, 0, 0, atol(a[0])));
	won("BIG-FILE-MADE");
}
static void pour(char **a) { // bytes on stdout, without a write
	static char b[65536];
	memset(b, '#', sizeof b);
	for (long n = atol(a[0]); n > 0;) {
		struct iovec v = {b, sizeof b};
		n -= TRY(vmsplice(1, &v, 1, 0));
	}
	won("\nPOURED-ALL");
}
static void sibling(char **a) { // be the child of whoever started us
	(void)a;
	long p = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (TRY(p)) return;
	TRY(setsid());
	detach();
}
static void hog(char **a) {
	size_t n = atol(a[0]);
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) refused("mmap");
	for (size_t i = 0; i < n; i += 4096) p[i] = 1;
	won("MEMORY-TAKEN");
}
static const struct technique all[] = {
	{"setsid", setsid_}, {"twice", twice}, {"deaf", deaf}, {"vfork", vfork_}, {"stopped", stopped},
	{"adopt", adopt}, {"chase", chase}, {"wait", wait_here}, {"wait-stopped", wait_stopped}, {"bomb", bomb},
	{"flood", flood}, {"long", long_}, {"descriptors", descriptors}, {"bigfile", bigfile}, {"reserve", reserve}, {"pour", pour}, {"sibling", sibling}, {"hog", hog}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
