// The forbidden library: its constructor says that its code ran.
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
	(void)!write(1, "FORBIDDEN-LIBRARY-RAN\n", 22);
}
int C_GetFunctionList(void *list) { return list == 0; } // and ssh-keygen
unsigned la_version(unsigned v) { return v; } // so that LD_AUDIT takes it
