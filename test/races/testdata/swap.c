// The swaps. "good" and "bad" are the allowed and the forbidden program.
#include "racer.h"

void pause_(unsigned *seed) {
	int r = rand_r(seed) % 100;
	if (r < 70) {
		for (volatile int i = rand_r(seed) % 20000; i > 0; i--);
	} else {
		struct timespec t = {0, (r < 97 ? rand_r(seed) % 2000 : 25000) * 1000L};
		nanosleep(&t, NULL);
	}
}

static int put(int to, const char *from) {
	char buf[65536];
	int fd = open(from, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, buf, sizeof buf, 0);
	if (fd >= 0) close(fd);
	return n <= 0 || pwrite(to, buf, n, 0) != n;
}

void duplicate(const char *from, const char *to) {
	char buf[65536];
	ssize_t n;
	int in = TRY(open(from, O_RDONLY | O_CLOEXEC)), out = TRY(open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
	while ((n = TRY(read(in, buf, sizeof buf))) > 0) TRY(write(out, buf, n));
	close(in);
	close(out);
}

static void exchange(const char *a, const char *b) {
	if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */) == 0) T->swaps++;
}

// over puts a second name of one of two files in the place of a path.
static void over(const char *path, const char *with) {
	if (link(with, "next") == 0 && rename("next", path) == 0) T->swaps++;
	unlink("next"); // rename leaves it where both name one file
}

// rewrite changes the bytes of the file that is there, by one of four ways.
static void rewrite(const char *path, const char *with, unsigned *seed) {
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC), in;
	void *p;
	if (fd < 0) return; // busy: it runs
	switch (rand_r(seed) % 4) {
	case 0:
		if (put(fd, with) == 0) T->swaps++;
		break;
	case 1:
		if (ftruncate(fd, 0) == 0 && put(fd, with) == 0) T->swaps++;
		break;
	case 2:
		in = open(with, O_RDONLY | O_CLOEXEC);
		if (in >= 0 && fstat(in, &st) == 0 && copy_file_range(in, &(off64_t){0}, fd, &(off64_t){0}, st.st_size, 0) == st.st_size) T->swaps++;
		if (in >= 0) close(in);
		break;
	case 3:
		in = open(with, O_RDONLY | O_CLOEXEC);
		if (in >= 0 && fstat(in, &st) == 0 && ftruncate(fd, st.st_size) == 0 &&
		    (p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) != MAP_FAILED) {
			if (pread(in, p, st.st_size, 0) == st.st_size) T->swaps++;
			munmap(p, st.st_size);
		}
		if (in >= 0) close(in);
		break;
	}
	close(fd);
}

static void two(void) {
	duplicate("good", "a");
	duplicate("bad", "b");
}
static void exchange_once(unsigned *seed) {
	exchange("a", "b");
	pause_(seed);
}
static void links(void) {
	TRY(symlink("good", "link-a"));
	TRY(symlink("bad", "link-b"));
}
static void links_once(unsigned *seed) {
	exchange("link-a", "link-b");
	pause_(seed);
}
static void directories(void) {
	TRY(mkdir("dir-a", 0755));
	TRY(mkdir("dir-b", 0755));
	duplicate("good", "dir-a/p");
	duplicate("bad", "dir-b/p");
}
static void directories_once(unsigned *seed) {
	exchange("dir-a", "dir-b");
	pause_(seed);
}
static void over_once(unsigned *seed) {
	over("a", "bad");
	pause_(seed);
	over("a", "good");
	pause_(seed);
}
static void write_once(unsigned *seed) {
	rewrite("a", "bad", seed);
	pause_(seed);
	rewrite("a", "good", seed);
	pause_(seed);
}
static void script(const char *name, const char *interpreter) {
	char cwd[4096], line[8192];
	TRY(getcwd(cwd, sizeof cwd) ? 0 : -1);
	int n = snprintf(line, sizeof line, "#!%s/%s\n", cwd, interpreter), fd = TRY(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0755));
	TRY(write(fd, line, n));
	close(fd);
}
static void interpreter(void) {
	two();
	script("script", "a");
}
static void scripts(void) {
	script("script", "good");
	script("script-b", "bad");
}
static void scripts_once(unsigned *seed) {
	exchange("script", "script-b");
	pause_(seed);
}
static void library(void) {
	duplicate("good.so", "libmark.so");
	duplicate("bad.so", "lib-b");
}
static void library_once(unsigned *seed) {
	exchange("libmark.so", "lib-b");
	pause_(seed);
}
static void library_write_once(unsigned *seed) {
	rewrite("libmark.so", "bad.so", seed);
	pause_(seed);
	rewrite("libmark.so", "good.so", seed);
	pause_(seed);
}
// What is built: new inodes, written while they are put in place.
static void build_once(unsigned *seed) {
	static const char *const what[] = {"good", "bad"};
	int i = rand_r(seed) % 2;
	unlink("next");
	int fd = open("next", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (fd < 0) return;
	int bad = put(fd, what[i]);
	close(fd);
	if (bad == 0 && rename("next", "a") == 0) T->swaps++;
	pause_(seed);
	rewrite("a", what[!i], seed);
	pause_(seed);
}

// What a superuser outside can put over a path.
static void bind_once(unsigned *seed) {
	if (mount("bad", "a", NULL, MS_BIND, NULL)) return;
	T->swaps++;
	pause_(seed);
	umount2("a", MNT_DETACH);
	pause_(seed);
}
static void overlay_once(unsigned *seed) {
	if (mount("none", "dir-a", "overlay", MS_RDONLY, "lowerdir=dir-b:dir-a")) return;
	T->swaps++;
	pause_(seed);
	umount2("dir-a", MNT_DETACH);
	pause_(seed);
}

// memory_once changes the path's text where the system call reads it.
char shared[64];
void memory_once(unsigned *seed) {
	memcpy(shared, "./bad\0", 7);
	for (volatile int i = rand_r(seed) % 2000; i > 0; i--);
	memcpy(shared, "./good", 7);
	for (volatile int i = rand_r(seed) % 2000; i > 0; i--);
	T->swaps++;
}

// descriptor_once changes the file behind a descriptor's number.
int fd_used = 100, fd_good, fd_bad;
void descriptor_once(unsigned *seed) {
	dup2(fd_bad, fd_used);
	for (volatile int i = rand_r(seed) % 2000; i > 0; i--);
	dup2(fd_good, fd_used);
	for (volatile int i = rand_r(seed) % 2000; i > 0; i--);
	T->swaps++;
}

static void self(void) {
	duplicate("racer", "a");
	duplicate("bad", "b");
}
static void none(void) {}

static const struct swap all[] = {
	{"exchange", two, exchange_once, "./a"},
	{"symlink", links, links_once, "./link-a"},
	{"directory", directories, directories_once, "./dir-a/p"},
	{"replace", two, over_once, "./a"},
	{"write", two, write_once, "./a"},
	{"interpreter", interpreter, exchange_once, "./script"},
	{"script", scripts, scripts_once, "./script"},
	{"library", library, library_once, "./host"},
	{"library-write", library, library_write_once, "./host"},
	{"build", two, build_once, "./a"},
	{"bind", two, bind_once, "./a"},
	{"overlay", directories, overlay_once, "./dir-a/p"},
	{"self", self, exchange_once, "./a"},
	{"memory", none, memory_once, shared},
	{"descriptor", none, descriptor_once, NULL},
	{0},
};
const struct swap *swap_named(const char *name) {
	for (const struct swap *s = all; s->name; s++)
		if (!strcmp(s->name, name)) return s;
	fprintf(stderr, "racer: no swap %s\n", name);
	exit(2);
}
