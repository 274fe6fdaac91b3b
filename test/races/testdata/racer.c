// racer executes while something swaps what it executes.
//
//   racer prepare SWAP          make the files
//   racer swap SWAP             swap until standard input ends
//   racer race SWAP WAY N       execute N times; WAY "outside-…": somebody else swaps
//   racer storm …               see storm.c
//   racer link N PATH           one of a chain of processes, each executing the next
#include "racer.h"

struct tally *T;
static const struct swap *swap;
static int64_t goal;
static atomic_int stop;

static int more(void) {
	// What only misses ends, too.
	return T->tries - T->missed < goal && T->tries < 30 * goal;
}

// failed counts a call that did not execute.
static void failed(void) {
	if (errno == EPERM || errno == EACCES)
		T->denied++;
	else
		T->missed++;
}

// go executes path, or the descriptor; it returns only in a child of its own.
static void go(const char *path) {
	char *av[] = {"x", NULL};
	int null = open("/dev/null", O_WRONLY);
	dup2(null, 2); // what a loader says
	T->tries++;
	if (path)
		execve(path, av, environ);
	else
		syscall(SYS_execveat, fd_used, "", av, environ, AT_EMPTY_PATH);
	failed();
	_exit(0);
}

// ended counts what a child that executed could not count itself.
static void ended(int status) {
	if ((WIFEXITED(status) && WEXITSTATUS(status) == 127) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) T->denied++;
}

static void *swapping(void *once) {
	unsigned seed = getpid() * 31 + time(NULL);
	while (!stop) ((void (*)(unsigned *))once)(&seed);
	return NULL;
}
static pthread_t start(void *(*f)(void *), void *arg) {
	pthread_t t;
	if (pthread_create(&t, NULL, f, arg)) {
		fprintf(stderr, "racer: pthread_create\n");
		exit(1);
	}
	return t;
}

static void by_fork(void) {
	int status;
	pid_t pid = TRY(fork());
	if (pid == 0) go(swap->path);
	TRY(waitpid(pid, &status, 0));
	ended(status);
}

// by_vfork executes in the memory of the process, in which another thread
// swaps.
static void by_vfork(void) {
	int status;
	char *av[] = {"x", NULL};
	T->tries++;
	pid_t pid = vfork();
	if (pid == 0) {
		execve(swap->path, av, environ);
		failed();
		_exit(0);
	}
	TRY(pid);
	TRY(waitpid(pid, &status, 0));
	ended(status);
}

// by_thread executes from a thread that is not the leader; the leader swaps.
static void *other_thread(void *unused) {
	(void)unused;
	go(swap->path);
	return NULL;
}
static void by_thread(void) {
	int status;
	pid_t pid = TRY(fork());
	if (pid == 0) {
		start(other_thread, NULL);
		swapping(swap->once);
	}
	TRY(waitpid(pid, &status, 0));
	ended(status);
}

// by_leader executes from the leader; a thread of its own process swaps.
static void by_leader(void) {
	int status;
	pid_t pid = TRY(fork());
	if (pid == 0) {
		start(swapping, swap->once);
		go(swap->path);
	}
	TRY(waitpid(pid, &status, 0));
	ended(status);
}

// by_sibling executes in a process whose parent is not who made it.
static void by_sibling(void) {
	int status;
	if (TRY(fork()) == 0) {
		if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) go(swap->path);
		_exit(0);
	}
	while (wait(&status) > 0) ended(status);
}

// gone waits until nobody holds the pipe that daemons inherit.
static void gone(int pipe[2]) {
	char c;
	close(pipe[1]);
	while (read(pipe[0], &c, 1) > 0);
	close(pipe[0]);
}

// by_daemon executes in a process that left parent and session.
static void by_daemon(void) {
	int p[2];
	TRY(pipe(p));
	pid_t pid = TRY(fork());
	if (pid == 0) {
		setsid();
		if (fork() == 0) {
			setsid();
			if (fork() == 0) go(swap->path);
		}
		_exit(0);
	}
	TRY(waitpid(pid, NULL, 0));
	gone(p);
}

// by_killed executes in children of a process that is killed while it forks.
static void by_killed(void) {
	static unsigned seed;
	int p[2];
	TRY(pipe(p));
	pid_t pid = TRY(fork());
	if (pid == 0) {
		setsid();
		for (int i = 0; i < 50; i++)
			if (fork() == 0) {
				if (i % 2) setsid();
				go(swap->path);
			}
		_exit(0);
	}
	for (volatile int i = rand_r(&seed) % 1000000; i > 0; i--);
	kill(rand_r(&seed) % 2 ? -pid : pid, SIGKILL);
	TRY(waitpid(pid, NULL, 0));
	gone(p);
}

// by_struck kills who executes, at any moment of it, and must learn of the end.
static void by_struck(void) {
	static unsigned seed;
	pid_t pid = TRY(fork());
	if (pid == 0) go(swap->path);
	struct timespec t = {0, rand_r(&seed) % 3000 * 1000L};
	nanosleep(&t, NULL);
	kill(pid, SIGKILL);
	TRY(waitpid(pid, NULL, 0));
}

// by_chain executes itself, and what that executes is the same path again.
static int link_(long left, char *path) {
	char next[32];
	if (write(1, "G", 1) != 1) return 1;
	for (; left > 0 && more(); left--) {
		snprintf(next, sizeof next, "%ld", left - 1);
		char *av[] = {"racer", "link", next, path, NULL};
		T->tries++;
		execve(path, av, environ);
		failed();
	}
	return 0;
}
static void by_chain(void) {
	int status;
	pid_t pid = TRY(fork());
	if (pid == 0) {
		char *av[] = {"racer", "link", "50", (char *)swap->path, NULL};
		T->tries++;
		execve(swap->path, av, environ);
		failed();
		_exit(0);
	}
	TRY(waitpid(pid, &status, 0));
	ended(status);
}

static const struct way {
	const char *name;
	void (*once)(void);
	int own; // it swaps in the process that executes
} ways[] = {
	{"fork", by_fork, 0}, {"vfork", by_vfork, 0}, {"thread", by_thread, 1}, {"leader", by_leader, 1}, {"sibling", by_sibling, 0},
	{"daemon", by_daemon, 0}, {"killed", by_killed, 0}, {"struck", by_struck, 0}, {"chain", by_chain, 0}, {0},
};

static int race(const char *name) {
	const struct way *w = ways;
	int outside = !strncmp(name, "outside-", 8);
	for (name += outside ? 8 : 0; w->name && strcmp(w->name, name);) w++;
	if (!w->name) return 2;
	strcpy(shared, "./good");
	if (!swap->path) { // where programs run as copies in their place, only what was opened since does
		static const struct swap approve = {"", NULL, NULL, "./good"};
		const struct swap *then = swap;
		swap = &approve;
		by_fork();
		swap = then;
	}
	fd_good = TRY(open("good", O_RDONLY));
	fd_bad = TRY(open("bad", O_RDONLY));
	TRY(dup2(fd_good, fd_used));
	if (!w->own && !outside) start(swapping, swap->once);
	while (more()) w->once();
	stop = 1;
	return 0;
}

int main(int argc, char **argv) {
	int fd = TRY(open("tally", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
	TRY(ftruncate(fd, sizeof *T + sizeof goal));
	T = mmap(NULL, sizeof *T + sizeof goal, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TRY(T == MAP_FAILED ? -1 : 0);
	int64_t *kept = (int64_t *)(T + 1); // the goal, for links of a chain
	goal = *kept;
	if (argc > 1 && !strcmp(argv[1], "storm")) return storm(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "link")) return link_(atol(argv[2]), argv[3]);
	if (argc < 3) return 2;
	swap = swap_named(argv[2]);
	if (!strcmp(argv[1], "prepare")) {
		swap->prepare();
		return 0;
	}
	if (!strcmp(argv[1], "swap")) {
		char c;
		pthread_t t = start(swapping, swap->once);
		while (read(0, &c, 1) > 0);
		stop = 1;
		pthread_join(t, NULL); // nothing stays mounted
		return 0;
	}
	if (argc != 5 || strcmp(argv[1], "race")) return 2;
	goal = *kept = atol(argv[4]);
	return race(argv[3]);
}
