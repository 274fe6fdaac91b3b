// System calls by the numbers of another architecture.
#include "attack.h"

#if defined(__x86_64__)
static void i386(char **a) { // int 0x80: open and read by 32-bit numbers
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long r;
	if (m == MAP_FAILED) refused("mmap");
	strcpy(m, a[0]);
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(5), "b"(m), "c"(O_RDONLY), "d"(0) : "memory", "r8", "r9", "r10", "r11");
	if (r < 0) errno = -r, refused("open by int 0x80");
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(3), "b"(r), "c"(m), "d"(4096) : "memory", "r8", "r9", "r10", "r11");
	if (r < 0) errno = -r, refused("read by int 0x80");
	m[r] = 0;
	won(m);
}
static void x32(char **a) {
	show(TRY(syscall(0x40000000 | SYS_open, a[0], O_RDONLY)));
}
#else
static void i386(char **a) { (void)a; errno = ENOSYS; refused("int 0x80"); }
static void x32(char **a) { (void)a; errno = ENOSYS; refused("x32"); }
#endif
static const struct technique all[] = {{"i386", i386}, {"x32", x32}, {0}};
int main(int argc, char **argv) { return pick(all, argc, argv); }
