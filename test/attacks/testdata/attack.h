// What every attack program shares. An attack says "attack-begin" on stderr
// when it starts, prints its loot on stdout, and ends with 0 if it believes
// that it won or with 77 if it was refused, naming the step and the error.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static inline void refused(const char *step) {
	fprintf(stderr, "refused: %s: %s\n", step, strerror(errno));
	exit(77);
}

// try ends the program unless the result of a system call is good.
static inline long try_(long r, const char *step) {
	if (r < 0) refused(step);
	return r;
}
#define TRY(call) try_((long)(call), #call)

static inline void won(const char *loot) {
	printf("%s\n", loot);
	fflush(stdout);
	exit(0);
}

// ready tells the harness that it may do its part.
static inline void ready(void) {
	printf("attack-ready\n");
	fflush(stdout);
}

// show prints what a descriptor holds.
static inline void show(int fd) {
	char buf[4096];
	ssize_t n = TRY(read(fd, buf, sizeof buf));
	if (n == 0) {
		errno = ENODATA;
		refused("read");
	}
	fwrite(buf, 1, n, stdout);
	fflush(stdout);
	exit(0);
}

static inline void writefile(const char *path, const char *text) {
	int fd = TRY(open(path, O_WRONLY | O_CREAT, 0644));
	TRY(write(fd, text, strlen(text)));
	close(fd);
}

// copy copies the bytes of from into the descriptor to.
static inline void copyto(const char *from, int to) {
	char buf[65536];
	ssize_t n;
	int fd = TRY(open(from, O_RDONLY));
	while ((n = TRY(read(fd, buf, sizeof buf))) > 0) TRY(write(to, buf, n));
	close(fd);
}

// A program is a table of techniques; argv[1] picks one.
struct technique {
	const char *name;
	void (*run)(char **args); // args behind the technique's name
};

static inline int pick(const struct technique *t, int argc, char **argv) {
	fprintf(stderr, "attack-begin\n");
	for (; argc > 1 && t->name; t++)
		if (!strcmp(t->name, argv[1])) {
			t->run(argv + 2);
			return 0;
		}
	fprintf(stderr, "no such technique\n");
	return 2;
}
