// The forbidden library: its constructor says that its code ran.
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
	(void)!write(1, "FORBIDDEN-LIBRARY-RAN\n", 22);
}
unsigned la_version(unsigned v) { return v; } // so that LD_AUDIT takes it
