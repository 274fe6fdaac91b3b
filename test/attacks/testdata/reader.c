// Prints the file it is given; made set-user-ID or given a file capability by
// the harness, it reads what its caller may not.
#include "attack.h"
int main(int argc, char **argv) {
	fprintf(stderr, "attack-begin\n");
	if (argc < 2) return 2;
	show(TRY(open(argv[1], O_RDONLY)));
}
