// spawn COUNT PROGRAM [ARG...]: starts PROGRAM and waits for it, COUNT times. An
// ARG that is % becomes the number of the start, from 0. Prints the nanoseconds of
// the first and the mean of the others.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static char number[16];

static long long once(char **argv, int i) {
	snprintf(number, sizeof number, "%d", i);
	long long start = now();
	pid_t pid;
	int status, err = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
	if (err != 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		fprintf(stderr, "spawn: %s did not run (error %d)\n", argv[0], err);
		exit(1);
	}
	return now() - start;
}

int main(int argc, char **argv) {
	if (argc < 3 || atoi(argv[1]) < 1) {
		fprintf(stderr, "usage: spawn COUNT PROGRAM [ARG...]\n");
		return 2;
	}
	for (int i = 3; i < argc; i++)
		if (strcmp(argv[i], "%") == 0)
			argv[i] = number;
	int count = atoi(argv[1]);
	long long first = once(argv + 2, 0), rest = 0;
	for (int i = 1; i < count; i++)
		rest += once(argv + 2, i);
	printf("%lld %lld\n", first, count > 1 ? rest / (count - 1) : 0);
	return 0;
}
