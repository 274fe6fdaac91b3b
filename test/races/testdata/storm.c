// A storm: lines of processes, each of which makes the next one and ends, in
// sessions of their own, some by executing anew. Whoever kills a process that it
// has seen comes too late, and a list of processes may miss them all: what tells
// that they are dead is the lock, which every one of them inherits and holds.
#include "racer.h"
#include <sys/file.h>

static void line(void) {
	unsigned seed = getpid();
	while (access("enough", F_OK) != 0) {
		T->hops++;
		pid_t pid = fork();
		if (pid < 0) {
			pause_(&seed);
			continue;
		}
		if (pid > 0) {
			struct timespec t = {0, 300000};
			nanosleep(&t, NULL); // both live for a moment
			_exit(0);
		}
		seed += getpid();
		setsid();
		if (rand_r(&seed) % 16 == 0) {
			char *av[] = {"racer", "storm", NULL};
			execve("./racer", av, environ);
		}
		if (rand_r(&seed) % 16 == 0 && fork() == 0) {
			char *av[] = {"x", NULL};
			execve("./bad", av, environ);
			_exit(0);
		}
	}
	_exit(0);
}

// storm begins lines and outlives them, or goes on with one.
int storm(const char *lines) {
	if (lines == NULL) line();
	TRY(flock(TRY(open("lock", O_RDWR | O_CREAT, 0644)), LOCK_SH));
	for (int i = atoi(lines); i > 0; i--)
		if (TRY(fork()) == 0) line();
	for (;;) pause();
}
