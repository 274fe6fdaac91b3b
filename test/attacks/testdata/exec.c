// Ways to run a file without naming it the way a rule would.
#include "attack.h"
#include <elf.h>
#include <pthread.h>
#include <sched.h>
#include <sys/sendfile.h>

static char *const av[] = {"innocent", NULL};

static void fexec(char **a) {
	int fd = TRY(open(a[0], O_RDONLY | O_CLOEXEC));
	fexecve(fd, av, environ);
	refused("fexecve");
}
static void opath(char **a) {
	int fd = TRY(open(a[0], O_PATH | O_CLOEXEC));
	syscall(SYS_execveat, fd, "", av, environ, AT_EMPTY_PATH);
	refused("execveat");
}
static void dirfd_(char **a) { // directory, name
	int fd = TRY(open(a[0], O_PATH | O_DIRECTORY));
	syscall(SYS_execveat, fd, a[1], av, environ, 0);
	refused("execveat");
}
static void memfd(char **a) {
	int fd = TRY(syscall(SYS_memfd_create, "x", MFD_CLOEXEC));
	copyto(a[0], fd);
	syscall(SYS_execveat, fd, "", av, environ, AT_EMPTY_PATH);
	refused("execveat");
}
static void memfd_exec(char **a) { // MFD_EXEC said explicitly, run through /proc
	char p[64];
	int fd = TRY(syscall(SYS_memfd_create, "x", 0x10));
	copyto(a[0], fd);
	TRY(snprintf(p, sizeof p, "/proc/self/fd/%d", fd));
	execve(p, av, environ);
	refused("execve");
}
static void reopen(int fd) { // an exec needs a file that nobody writes
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	int ro = TRY(open(p, O_RDONLY | O_CLOEXEC));
	TRY(fchmod(ro, 0755));
	close(fd);
	syscall(SYS_execveat, ro, "", av, environ, AT_EMPTY_PATH);
	refused("execveat");
}
static void tmpfile_(char **a) {
	int fd = TRY(open(".", O_TMPFILE | O_RDWR, 0755));
	copyto(a[0], fd);
	reopen(fd);
}
static void born(char **a) { // made without a name, which it gets when it is whole
	char p[64];
	int fd = TRY(open(".", O_TMPFILE | O_RDWR, 0755));
	copyto(a[0], fd);
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	TRY(linkat(AT_FDCWD, p, AT_FDCWD, "born", AT_SYMLINK_FOLLOW));
	close(fd);
	execv("./born", av);
	refused("execve");
}
static void vforked(char **a) { // by a child in its parent's memory
	int st;
	pid_t p = vfork();
	if (p == 0) {
		execve(a[0], av, environ);
		_exit(errno);
	}
	TRY(p);
	TRY(waitpid(p, &st, 0));
	if (!WIFEXITED(st) || WEXITSTATUS(st)) {
		errno = WIFEXITED(st) ? WEXITSTATUS(st) : EPERM;
		refused("execve");
	}
}
static void *execute(void *path) {
	execve(path, av, environ);
	refused("execve");
	return NULL;
}
static void thread(char **a) { // a thread that becomes the process
	pthread_t t;
	if (pthread_create(&t, NULL, execute, a[0])) refused("pthread_create");
	pthread_join(t, NULL);
}
static void brother(char **a) { // through what another process holds open
	char p[64];
	int go[2];
	TRY(pipe(go));
	pid_t b = TRY(fork());
	if (b == 0) {
		dup2(TRY(open(a[0], O_PATH)), 40);
		TRY(write(go[1], "x", 1));
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) pause();
	}
	TRY(read(go[0], p, 1));
	snprintf(p, sizeof p, "/proc/%d/fd/40", b);
	pid_t c = TRY(fork());
	if (c == 0) execute(p);
	int st;
	TRY(waitpid(c, &st, 0));
	kill(b, SIGKILL);
	if (st) {
		errno = EACCES;
		refused("execve");
	}
}
static void mapped(char **a) { // through the file behind a mapping
	char line[4096], *end;
	struct stat st;
	int fd = TRY(open(a[0], O_RDONLY));
	TRY(fstat(fd, &st));
	if (mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) refused("mmap");
	FILE *f = fopen("/proc/self/maps", "r");
	while (f && fgets(line, sizeof line, f))
		if (strstr(line, a[0]) && (end = strchr(line, ' '))) {
			char p[8192];
			*end = 0;
			snprintf(p, sizeof p, "/proc/self/map_files/%s", line);
			execute(p);
		}
	refused("/proc/self/maps");
}
// interpreter names a program as the dynamic loader of an approved one.
static void interpreter(char **a) {
	static char b[1 << 22];
	int fd = TRY(open("/usr/bin/true", O_RDONLY));
	ssize_t n = TRY(read(fd, b, sizeof b));
	Elf64_Ehdr *e = (void *)b;
	Elf64_Phdr *p = (void *)(b + e->e_phoff);
	for (int i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_INTERP) {
			if (strlen(a[0]) + 1 > p[i].p_filesz) errno = ENAMETOOLONG, refused("interpreter");
			strcpy(b + p[i].p_offset, a[0]);
			p[i].p_filesz = strlen(a[0]) + 1;
		}
	int out = TRY(open("mine", O_CREAT | O_WRONLY, 0755));
	TRY(write(out, b, n));
	close(out);
	execv("./mine", av);
	refused("execve");
}
static void deleted(char **a) {
	int fd = TRY(open("gone", O_CREAT | O_RDWR, 0755));
	copyto(a[0], fd);
	TRY(unlink("gone"));
	reopen(fd);
}
static void overwrite(char **a) { // run an innocent program, then put the tool's bytes into it
	int fd = TRY(open("innocent", O_CREAT | O_TRUNC | O_RDWR, 0755));
	copyto("/usr/bin/true", fd);
	close(fd);
	pid_t p = TRY(fork());
	if (p == 0) {
		execl("./innocent", "innocent", NULL);
		_exit(1);
	}
	int st;
	TRY(waitpid(p, &st, 0));
	if (st != 0) refused("the innocent program");
	fd = TRY(open("innocent", O_TRUNC | O_RDWR));
	copyto(a[0], fd);
	close(fd);
	execl("./innocent", "innocent", NULL);
	refused("execve");
}
static void userns(void) {
	uid_t u = getuid();
	gid_t g = getgid();
	char m[64];
	TRY(unshare(CLONE_NEWUSER | CLONE_NEWNS));
	writefile("/proc/self/setgroups", "deny");
	snprintf(m, sizeof m, "0 %u 1", u);
	writefile("/proc/self/uid_map", m);
	snprintf(m, sizeof m, "0 %u 1", g);
	writefile("/proc/self/gid_map", m);
}
static void tmpfs(char **a) { // a fresh file system is not noexec
	userns();
	TRY(mkdir("fresh", 0755));
	TRY(mount("none", "fresh", "tmpfs", 0, NULL));
	int fd = TRY(open("fresh/x", O_CREAT | O_WRONLY, 0755));
	copyto(a[0], fd);
	close(fd);
	execv("fresh/x", av);
	refused("execve");
}
static void bindmount(char **a) { // the tool under an innocent path
	userns();
	close(TRY(open("decoy", O_CREAT | O_WRONLY, 0755)));
	TRY(mount(a[0], "decoy", NULL, MS_BIND, NULL));
	execv("./decoy", av);
	refused("execve");
}
static void unmask(char **a) { // take the mounts away that hide a file
	userns();
	TRY(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	mkdir("whole", 0755);
	TRY(mount("/", "whole", NULL, MS_BIND | MS_REC, NULL));
	char p[4096];
	snprintf(p, sizeof p, "whole%s", a[0]);
	show(TRY(open(p, O_RDONLY)));
}
static void clone3_(char **a) { // the same namespace by a call that hides its flags
	(void)a;
	uint64_t args[11] = {CLONE_NEWUSER | CLONE_NEWNS};
	args[4] = SIGCHLD;
	pid_t p = TRY(syscall(SYS_clone3, args, sizeof args));
	if (p == 0) _exit(mount("none", "/mnt", "tmpfs", 0, NULL) ? 1 : 0);
	int st;
	TRY(waitpid(p, &st, 0));
	if (st) {
		errno = EPERM;
		refused("mount");
	}
	won("MOUNTED");
}
static const struct technique all[] = {
	{"fexecve", fexec}, {"opath", opath}, {"dirfd", dirfd_}, {"memfd", memfd}, {"memfd-exec", memfd_exec},
	{"tmpfile", tmpfile_}, {"born", born}, {"vfork", vforked}, {"thread", thread}, {"brother", brother},
	{"mapped", mapped}, {"interpreter", interpreter}, {"deleted", deleted}, {"overwrite", overwrite}, {"tmpfs", tmpfs},
	{"bind", bindmount}, {"unmask", unmask}, {"clone3", clone3_}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
