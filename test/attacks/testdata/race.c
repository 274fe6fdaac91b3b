// Races between the moment that a call is judged and the moment that the
// kernel acts on it. Each is tried many times; once is enough.
#include "attack.h"
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static volatile int stop;
static char *volatile one, *volatile two;
static char shared[4096];

// more bounds the rounds: ungoverned it goes on until it wins, however slow the
// machine is; an execution is given a second of losing (test/races
// counts rounds).
static int more(void) {
	struct timespec t;
	static double end;
	clock_gettime(CLOCK_MONOTONIC, &t);
	double now = t.tv_sec + t.tv_nsec / 1e9;
	if (!end) end = now + (getenv("EXEQ_EXECUTION") ? 1 : 60);
	return now < end;
}

// outside writes through a descriptor, and ends the program if what it opened
// is not the file of one's own.
static void outside(int fd, const char *own, const char *text) {
	struct stat opened, mine;
	if (fd < 0) return;
	(void)!write(fd, text, strlen(text));
	if (fstat(fd, &opened) == 0 && stat(own, &mine) == 0 && opened.st_ino != mine.st_ino) won("written outside");
	close(fd);
}

// pause_ leaves what was written to memory visible for a moment.
static void pause_(void) {
	__asm__ volatile("" ::: "memory");
	for (volatile int i = 0; i < 200; i++);
}

// flip_memory rewrites the string that the other thread's call points at.
static void *flip_memory(void *unused) {
	(void)unused;
	size_t n = strlen(one) > strlen(two) ? strlen(one) : strlen(two);
	while (!stop) {
		memcpy(shared, two, n + 1);
		pause_();
		memcpy(shared, one, n + 1);
		pause_();
	}
	return NULL;
}
// flip_path swaps two directory entries.
static void *flip_path(void *unused) {
	(void)unused;
	while (!stop) syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, 2 /* RENAME_EXCHANGE */);
	return NULL;
}
static pthread_t start(void *(*f)(void *)) {
	pthread_t t;
	if (pthread_create(&t, NULL, f, NULL)) refused("pthread_create");
	return t;
}
// ran runs path and returns whether the forbidden program spoke.
static int ran(const char *path) {
	int p[2];
	char buf[256];
	TRY(pipe(p));
	pid_t pid = TRY(fork());
	if (pid == 0) {
		char *av[] = {"x", NULL};
		dup2(p[1], 1);
		execve(path, av, environ);
		_exit(1);
	}
	close(p[1]);
	ssize_t n = read(p[0], buf, sizeof buf - 1), m;
	while ((m = read(p[0], buf + (n > 0 ? n : 0), sizeof buf - 1 - (n > 0 ? n : 0))) > 0) n += m;
	close(p[0]);
	waitpid(pid, NULL, 0);
	if (n < 0) n = 0;
	buf[n] = 0;
	return strstr(buf, "FORBIDDEN-PROGRAM-RAN") != NULL;
}
static void rounds(const char *path) {
	while (more())
		if (ran(path)) won("FORBIDDEN-PROGRAM-RAN");
	stop = 1;
	errno = EPERM;
	refused("every round");
}
static void duplicate(const char *from, const char *to) {
	int fd = TRY(open(to, O_CREAT | O_TRUNC | O_WRONLY, 0755));
	copyto(from, fd);
	close(fd);
}
static void exec_path(char **a) { // the tool
	duplicate("/usr/bin/true", "swap-a");
	duplicate(a[0], "swap-b");
	one = "swap-a", two = "swap-b";
	start(flip_path);
	rounds("./swap-a");
}
static void exec_symlink(char **a) {
	TRY(symlink("/usr/bin/true", "link-a"));
	TRY(symlink(a[0], "link-b"));
	one = "link-a", two = "link-b";
	start(flip_path);
	rounds("./link-a");
}
static void exec_shebang(char **a) {
	char line[4096];
	writefile("script-a", "#!/usr/bin/true\n");
	snprintf(line, sizeof line, "#!%s\n", a[0]);
	writefile("script-b", line);
	TRY(chmod("script-a", 0755));
	TRY(chmod("script-b", 0755));
	one = "script-a", two = "script-b";
	start(flip_path);
	rounds("./script-a");
}
// exec_memory changes the path's text in memory, from threads of its own
// process: exec ends them, but only once it is past the check.
static void exec_memory(char **a) {
	one = "/usr/bin/true";
	two = a[0];
	while (more()) {
		int p[2];
		char buf[64] = "";
		TRY(pipe(p));
		strcpy(shared, one);
		pid_t pid = TRY(fork());
		if (pid == 0) {
			char *av[] = {"x", NULL};
			dup2(p[1], 1);
			start(flip_memory);
			execve(shared, av, environ);
			_exit(1);
		}
		close(p[1]);
		ssize_t n = read(p[0], buf, sizeof buf - 1);
		(void)n;
		close(p[0]);
		waitpid(pid, NULL, 0);
		if (strstr(buf, "FORBIDDEN-PROGRAM-RAN")) won("FORBIDDEN-PROGRAM-RAN");
	}
	errno = EPERM;
	refused("every round");
}
// argument swaps an argument that policy forbids in for one that it allows.
static void argument(char **a) {
	one = "permitted";
	char whole[256];
	snprintf(whole, sizeof whole, "%s%s", a[0], a[1]); // in two, or we were not begun
	two = whole;
	while (more()) {
		int p[2];
		char buf[64] = "";
		TRY(pipe(p));
		strcpy(shared, one);
		pid_t pid = TRY(fork());
		if (pid == 0) {
			char *av[] = {"printf", "%s", shared, NULL};
			dup2(p[1], 1);
			start(flip_memory);
			execve("/usr/bin/printf", av, environ);
			_exit(1);
		}
		close(p[1]);
		ssize_t n = read(p[0], buf, sizeof buf - 1);
		(void)n;
		close(p[0]);
		waitpid(pid, NULL, 0);
		if (strstr(buf, two)) {
			printf("argument was %s\n", two);
			exit(0);
		}
	}
	errno = EPERM;
	refused("every round");
}
static void open_memory(char **a) { // the secret's path
	writefile("harmless", "harmless");
	one = realpath("harmless", NULL);
	two = a[0];
	strcpy(shared, one);
	start(flip_memory);
	while (more()) {
		char buf[256];
		int fd = open(shared, O_RDONLY);
		if (fd < 0) continue;
		ssize_t n = read(fd, buf, sizeof buf - 1);
		close(fd);
		buf[n < 0 ? 0 : n] = 0;
		if (n > 0 && strcmp(buf, "harmless")) won(buf);
	}
	stop = 1;
	errno = EPERM;
	refused("every round");
}
static void write_memory(char **a) { // the target's path, what to write
	writefile("harmless", "harmless");
	one = realpath("harmless", NULL);
	two = a[0];
	strcpy(shared, one);
	start(flip_memory);
	while (more()) {
		outside(open(shared, O_WRONLY | O_APPEND), one, a[1]);
	}
	errno = EPERM;
	refused("every round");
}
static void write_symlink(char **a) { // directory outside, file name, what to write
	char p[4096], own[4096];
	TRY(mkdir("dir", 0755));
	TRY(symlink("dir", "way-a"));
	TRY(symlink(a[0], "way-b"));
	one = "way-a", two = "way-b";
	snprintf(p, sizeof p, "way-a/%s", a[1]);
	snprintf(own, sizeof own, "dir/%s", a[1]);
	start(flip_path);
	while (more()) {
		outside(open(p, O_WRONLY | O_CREAT, 0644), own, a[2]);
	}
	errno = EPERM;
	refused("every round");
}
// connect_memory swaps the socket address between one's own and an outsider's.
static struct sockaddr_un mine, theirs, target;
static void *flip_address(void *unused) {
	(void)unused;
	while (!stop) {
		memcpy(&target, &theirs, sizeof target);
		pause_();
		memcpy(&target, &mine, sizeof target);
		pause_();
	}
	return NULL;
}
static void connect_memory(char **a) { // the outsider's socket
	mine.sun_family = theirs.sun_family = AF_UNIX;
	strcpy(mine.sun_path, "mine.sock");
	strncpy(theirs.sun_path, a[0], sizeof theirs.sun_path - 1);
	int l = TRY(socket(AF_UNIX, SOCK_STREAM, 0));
	TRY(bind(l, (void *)&mine, sizeof mine));
	TRY(listen(l, 4096));
	TRY(fcntl(l, F_SETFL, O_NONBLOCK));
	target = mine;
	start(flip_address);
	while (more()) {
		char buf[512];
		int s = TRY(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		if (connect(s, (void *)&target, sizeof target) == 0) {
			char peer[256] = "";
			socklen_t n = sizeof peer;
			getpeername(s, (void *)peer, &n);
			if (((struct sockaddr_un *)peer)->sun_path[0] == '/') {
				fcntl(s, F_SETFL, 0);
				ssize_t got = read(s, buf, sizeof buf - 1);
				if (got > 0) {
					buf[got] = 0;
					won(buf);
				}
			}
		}
		close(s);
		int c = accept4(l, NULL, NULL, SOCK_NONBLOCK);
		if (c >= 0) close(c);
	}
	stop = 1;
	errno = EPERM;
	refused("every round");
}
// map_descriptor swaps the file behind a descriptor number while it is mapped.
static int fd_good, fd_bad, fd_used = 100;
static void *flip_descriptor(void *unused) {
	(void)unused;
	while (!stop) {
		dup2(fd_bad, fd_used);
		dup2(fd_good, fd_used);
	}
	return NULL;
}
static void map_descriptor(char **a) { // the forbidden code
	char nop[64] = {0};
	int fd = TRY(open("good.bin", O_CREAT | O_RDWR, 0755));
#if defined(__x86_64__)
	nop[0] = '\xc3';
#else
	memcpy(nop, "\xc0\x03\x5f\xd6", 4);
#endif
	TRY(write(fd, nop, sizeof nop));
	fd_good = fd;
	fd_bad = TRY(open(a[0], O_RDONLY));
	TRY(dup2(fd_good, fd_used));
	start(flip_descriptor);
	while (more()) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd_used, 0);
		if (p == MAP_FAILED) continue;
		if (memcmp(p, nop, 4)) {
			long r = ((long (*)(void))p)();
			if (r == 0x4c1d) won("FORBIDDEN-CODE-RAN");
		}
		munmap(p, 4096);
	}
	stop = 1;
	errno = EPERM;
	refused("every round");
}
static const struct technique all[] = {
	{"exec-path", exec_path}, {"exec-symlink", exec_symlink}, {"exec-shebang", exec_shebang},
	{"exec-memory", exec_memory}, {"argument", argument}, {"open-memory", open_memory},
	{"write-memory", write_memory}, {"write-symlink", write_symlink},
	{"connect-memory", connect_memory}, {"map-descriptor", map_descriptor}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
