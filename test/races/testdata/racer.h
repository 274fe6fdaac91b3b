// What swaps, ways of executing and storms share.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// tally lies in a file of the workspace, so that whatever replaces a process, and
// the harness, count in one place. What ran says so itself, see mark.c.
struct tally {
	_Atomic int64_t tries;  // execve was called
	_Atomic int64_t denied; // and refused, or the loader was, or the process was killed
	_Atomic int64_t missed; // and nothing was there to decide on: busy, gone, torn
	_Atomic int64_t swaps;
	_Atomic int64_t hops; // processes of a storm
};
extern struct tally *T;

extern char **environ;

#define TRY(call) try_((long)(call), #call)
static inline long try_(long r, const char *step) {
	if (r < 0) {
		fprintf(stderr, "racer: %s: %s\n", step, strerror(errno));
		exit(1);
	}
	return r;
}

// A swap makes what is at a path now the allowed, now the forbidden thing.
struct swap {
	const char *name;
	void (*prepare)(void);
	void (*once)(unsigned *seed);
	const char *path; // what is executed meanwhile
};
const struct swap *swap_named(const char *name);

// The same thing stands behind a string and a descriptor of a process.
extern char shared[64];
void memory_once(unsigned *seed);
void descriptor_once(unsigned *seed);
extern int fd_used, fd_good, fd_bad;

// pause_ waits from nothing to longer than digests need to settle.
void pause_(unsigned *seed);
void duplicate(const char *from, const char *to);

int storm(const char *lines);
