// A process outside the execution with a secret in its memory, environment,
// command line and descriptors. It reads the secret on standard input, says
// where it is and how it is doing, and lives until its input ends.
#include "attack.h"
static char secret[256];
int main(int argc, char **argv) {
	(void)argc;
	ssize_t n = TRY(read(0, secret, sizeof secret - 1));
	secret[n] = 0;
	int fd = TRY(open(argv[1], O_RDONLY)); // the secret's file, kept open
	printf("%p %d\n", (void *)secret, fd);
	fflush(stdout);
	char c;
	while (read(0, &c, 1) > 0) { // each byte asks: what does the secret hold?
		printf("%s\n", secret);
		fflush(stdout);
	}
}
