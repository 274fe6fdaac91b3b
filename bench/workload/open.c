// open read|write COUNT FILE...: opens and closes the files in turn, COUNT
// times in all. Prints the nanoseconds of the first and the mean of the others, and
// the mean CPU time of all.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
	if (argc < 4 || atoi(argv[2]) < 2) {
		fprintf(stderr, "usage: open read|write COUNT FILE...\n");
		return 2;
	}
	int flags = strcmp(argv[1], "write") == 0 ? O_WRONLY : O_RDONLY;
	int count = atoi(argv[2]), files = argc - 3;
	long long cpu = now(CLOCK_PROCESS_CPUTIME_ID), start = now(CLOCK_MONOTONIC), first = 0;
	for (int i = 0; i < count; i++) {
		int fd = open(argv[3 + i % files], flags | O_CLOEXEC);
		if (fd < 0) {
			perror(argv[3 + i % files]);
			return 1;
		}
		close(fd);
		if (i == 0)
			first = now(CLOCK_MONOTONIC) - start;
	}
	long long others = (now(CLOCK_MONOTONIC) - start - first) / (count - 1);
	cpu = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / count;
	printf("%lld %lld %lld\n", first, others, cpu);
	return 0;
}
