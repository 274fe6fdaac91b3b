// open read|write COUNT FILE...: opens and closes the files in turn, COUNT
// times in all. Prints the nanoseconds of the first and the mean of the others, and
// the mean CPU time of all.
//
// open paced-read|paced-write RATE SECONDS FILE...: the same RATE times a second,
// spread over each millisecond of it, for so long. A file that is refused is no
// error. Prints how many opens were refused, and how many there were in all.
#define _GNU_SOURCE
#include <errno.h>
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

static int paced(int flags, int rate, int seconds, char **file, int files) {
	long long refused = 0, done = 0, start = now(CLOCK_MONOTONIC);
	for (long long tick = 1; tick <= seconds * 1000LL; tick++) {
		for (; done * 1000 < tick * rate; done++) {
			int fd = open(file[done % files], flags | O_CLOEXEC);
			if (fd >= 0)
				close(fd);
			else if (errno == EACCES || errno == EPERM || errno == EROFS)
				refused++;
			else {
				perror(file[done % files]);
				return 1;
			}
		}
		long long at = start + tick * 1000000;
		struct timespec t = {at / 1000000000, at % 1000000000};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
	printf("%lld %lld\n", refused, done);
	return 0;
}

int main(int argc, char **argv) {
	if (argc > 4 && strncmp(argv[1], "paced-", 6) == 0)
		return paced(strcmp(argv[1] + 6, "write") == 0 ? O_WRONLY : O_RDONLY, atoi(argv[2]), atoi(argv[3]), argv + 4, argc - 4);
	if (argc < 4 || atoi(argv[2]) < 2) {
		fprintf(stderr, "usage: open read|write COUNT FILE...\n       open paced-read|paced-write RATE SECONDS FILE...\n");
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
