// The forbidden program: harmless, but policy denies it and it says if it ran.
#include <stdio.h>
int main(void) {
	fputs("FORBIDDEN-PROGRAM-RAN\n", stderr); // where standard output is taken
	return puts("FORBIDDEN-PROGRAM-RAN") < 0;
}
