// Running machine code that came out of a file which may not be executed.
#include "attack.h"
#include <poll.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/shm.h>

#define SIZE 4096

static void call(void *code) {
	if (code == MAP_FAILED) refused("mmap");
	__builtin___clear_cache(code, (char *)code + 64);
	if (((long (*)(void))code)() == 0x4c1d) won("FORBIDDEN-CODE-RAN");
}
static int file(char **a) { return TRY(open(a[0], O_RDONLY)); }
static void map(char **a) { call(mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file(a), 0)); }
static void shared(char **a) { call(mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, file(a), 0)); }
static void protect(char **a) {
	void *p = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, file(a), 0);
	if (p == MAP_FAILED) refused("mmap");
	TRY(mprotect(p, SIZE, PROT_READ | PROT_EXEC));
	call(p);
}
static void dirty(char **a) { // a private page, written once, is no longer the file's
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file(a), 0);
	if (p == MAP_FAILED) refused("mmap");
	p[SIZE - 1] = 1;
	TRY(mprotect(p, SIZE, PROT_READ | PROT_EXEC));
	call(p);
}
static void pkey(char **a) {
	void *p = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, file(a), 0);
	if (p == MAP_FAILED) refused("mmap");
	TRY(syscall(SYS_pkey_mprotect, p, SIZE, PROT_READ | PROT_EXEC, -1));
	call(p);
}
static void persona(char **a) { // readable is executable, says an old switch
	TRY(personality(READ_IMPLIES_EXEC));
	call(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, file(a), 0));
}
static void anonymous(char **a) {
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) refused("mmap");
	TRY(read(file(a), p, SIZE));
	TRY(mprotect(p, SIZE, PROT_READ | PROT_EXEC));
	call(p);
}
static void memfd(char **a) {
	int fd = TRY(syscall(SYS_memfd_create, "x", 0));
	copyto(a[0], fd);
	call(mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
}
static void sysv(char **a) {
	int id = TRY(shmget(IPC_PRIVATE, SIZE, 0700));
	char *p = shmat(id, NULL, SHM_EXEC);
	if (p == (void *)-1) refused("shmat");
	shmctl(id, IPC_RMID, NULL);
	TRY(read(file(a), p, SIZE));
	call(p);
}
static int harmless(void) { // code of one's own that may be executed: it only returns
	char b[SIZE] = {0};
	int fd = TRY(open("harmless.bin", O_CREAT | O_TRUNC | O_RDWR, 0755));
#if defined(__x86_64__)
	b[0] = '\xc3';
#else
	memcpy(b, "\xc0\x03\x5f\xd6", 4);
#endif
	TRY(write(fd, b, sizeof b));
	close(fd);
	return TRY(open("harmless.bin", O_RDONLY)); // while nobody writes it
}
static void rewritten(char **a) { // a file rewritten under its executable mapping
	char b[64];
	int fd = harmless();
	void *p = mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED) refused("mmap");
	TRY(read(file(a), b, sizeof b));
	TRY(pwrite(TRY(open("harmless.bin", O_WRONLY)), b, sizeof b, 0));
	call(p);
	errno = EPERM;
	refused("the mapping is as it was");
}
static void twofold(char **a) { // one file mapped twice, to execute and to write
	char b[64];
	void *p = mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, harmless(), 0);
	void *w = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, TRY(open("harmless.bin", O_RDWR)), 0);
	if (w == MAP_FAILED || p == MAP_FAILED) refused("mmap");
	TRY(read(file(a), b, sizeof b));
	memcpy(w, b, sizeof b);
	call(p);
	errno = EPERM;
	refused("the mapping is as it was");
}
static void segment(char **a) { // a 16-bit segment: an old way into the kernel
	struct { unsigned entry, base, limit, flags; } d = {0, 0, 0xfff, 1};
	(void)a;
#ifdef SYS_modify_ldt
	TRY(syscall(SYS_modify_ldt, 0x11, &d, sizeof d));
	won("SEGMENT-MADE");
#else
	(void)d;
	errno = ENOSYS;
	refused("modify_ldt");
#endif
}
static void zero(char **a) { // /dev/zero is anonymous memory with a name
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, TRY(open("/dev/zero", O_RDWR)), 0);
	if (p == MAP_FAILED) refused("mmap");
	TRY(read(file(a), p, SIZE));
	call(p);
}
static void selfmem(char **a) { // /proc/self/mem writes where mprotect would not
	char code[64];
	TRY(read(file(a), code, sizeof code));
	int fd = TRY(open("/proc/self/mem", O_RDWR));
	TRY(pwrite(fd, code, sizeof code, (off_t)(uintptr_t)persona));
	call(persona);
}
static void fault(char **a) { // hold the kernel in the middle of a copy
	(void)a;
	int fd = TRY(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
	struct uffdio_api api = {.api = UFFD_API};
	TRY(ioctl(fd, UFFDIO_API, &api));
	won("USERFAULTFD-OPEN");
}
static const struct technique all[] = {
	{"map", map}, {"shared", shared}, {"mprotect", protect}, {"dirty", dirty}, {"pkey", pkey},
	{"personality", persona}, {"anonymous", anonymous}, {"memfd", memfd}, {"sysv", sysv}, {"zero", zero}, {"rewritten", rewritten}, {"twofold", twofold}, {"segment", segment},
	{"selfmem", selfmem}, {"userfaultfd", fault}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
