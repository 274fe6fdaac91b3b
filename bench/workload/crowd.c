// crowd spin|fork COUNT FIFO: COUNT children that wait until nobody has FIFO
// open for writing any more. Then each of them computes, or makes a child that
// ends and waits for it, again and again, until it is killed: after a minute by
// itself.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void busy(int forks, int fifo) {
	char c;
	alarm(60);
	while (read(fifo, &c, 1) > 0)
		;
	for (volatile unsigned long n = 0;; n++) {
		if (!forks)
			continue;
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

int main(int argc, char **argv) {
	if (argc != 4 || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: crowd spin|fork COUNT FIFO\n");
		return 2;
	}
	int fifo = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (fifo < 0) {
		perror(argv[3]);
		return 1;
	}
	for (int i = 0; i < atoi(argv[2]); i++) {
		pid_t pid = fork();
		if (pid < 0) {
			perror("fork");
			return 1;
		}
		if (pid == 0)
			busy(strcmp(argv[1], "fork") == 0, fifo);
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
