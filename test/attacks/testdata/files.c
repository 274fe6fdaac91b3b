// Changing a file that may not be changed, by every call that can.
#include "attack.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/xattr.h>

static void write_(char **a) { writefile(a[0], a[1]); }
static void trunc_open(char **a) { TRY(open(a[0], O_RDONLY | O_TRUNC)); } // "read", says the mode
static void truncate_(char **a) { TRY(truncate(a[0], 1)); }
static void chmod_(char **a) { TRY(chmod(a[0], 0777)); }
static void fchmod_(char **a) { TRY(fchmod(TRY(open(a[0], O_RDONLY)), 0777)); }
static void fchmodat2_(char **a) { TRY(syscall(452, AT_FDCWD, a[0], 0777, 0)); }
static void chown_(char **a) { TRY(chown(a[0], -1, atoi(a[1]))); }
static void utimes_(char **a) {
	struct timeval t[2] = {{1, 0}, {1, 0}};
	TRY(utimes(a[0], t));
}
static void xattr(char **a) { TRY(setxattr(a[0], "user.mark", a[1], strlen(a[1]), 0)); }
static void unlink_(char **a) { TRY(unlink(a[0])); }
static void rename_over(char **a) {
	writefile("mine", a[1]);
	TRY(rename("mine", a[0]));
}
static void exchange(char **a) {
	writefile("mine", a[1]);
	TRY(syscall(SYS_renameat2, AT_FDCWD, "mine", AT_FDCWD, a[0], 2));
}
static void rename_away(char **a) { TRY(rename(a[0], "stolen")); }
static void hardlink(char **a) { // and then write through the new name
	TRY(link(a[0], "alias"));
	int fd = TRY(open("alias", O_WRONLY | O_APPEND));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void symlink_(char **a) {
	TRY(symlink(a[0], "alias"));
	int fd = TRY(open("alias", O_WRONLY | O_APPEND));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void map(char **a) {
	int fd = TRY(open(a[0], O_RDWR));
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) refused("mmap");
	p[0] = '!';
	TRY(msync(p, 4096, MS_SYNC));
}
static void reopen(char **a) { // read, then ask /proc for the same file to write
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", (int)TRY(open(a[0], O_RDONLY)));
	int fd = TRY(open(p, O_WRONLY | O_APPEND));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void opath(char **a) { // the same with a descriptor that needs no right
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", (int)TRY(open(a[0], O_PATH)));
	int fd = TRY(open(p, O_WRONLY | O_APPEND));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void openat2_(char **a) {
	uint64_t how[3] = {O_WRONLY | O_APPEND, 0, 0};
	int fd = TRY(syscall(SYS_openat2, AT_FDCWD, a[0], how, sizeof how));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void in_root(char **a) { // with "/" as the root that the kernel keeps it in
	uint64_t how[3] = {O_WRONLY | O_APPEND, 0, 0x10 /* RESOLVE_IN_ROOT */};
	int fd = TRY(syscall(SYS_openat2, TRY(open("/", O_PATH)), a[0], how, sizeof how));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void flags(char **a) { // an attribute of the inode, for which reading suffices
	unsigned f = 0;
	int fd = TRY(open(a[0], O_RDONLY));
	TRY(ioctl(fd, FS_IOC_GETFLAGS, &f));
	f ^= FS_NODUMP_FL;
	TRY(ioctl(fd, FS_IOC_SETFLAGS, &f));
}
static void capability(char **a) { // a program that has a right of root's, for later
	unsigned char cap[20] = {1, 0, 0, 2, 2};
	close(TRY(open(a[0], O_CREAT | O_WRONLY, 0755)));
	TRY(setxattr(a[0], "security.capability", cap, sizeof cap, 0));
	if (getxattr(a[0], "security.capability", cap, sizeof cap) > 0) won("CAPABILITY-SET");
}
static void device(char **a) { TRY(mknod(a[0], S_IFCHR | 0666, 0x103)); } // for somebody who may open it
static void born(char **a) { // made inside without a name, named outside
	char p[64];
	int fd = TRY(open(".", O_TMPFILE | O_RDWR, 0644));
	TRY(write(fd, a[1], strlen(a[1])));
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	TRY(linkat(AT_FDCWD, p, AT_FDCWD, a[0], AT_SYMLINK_FOLLOW));
}
static void create(char **a) { // a new file where none may be made
	int fd = TRY(open(a[0], O_CREAT | O_EXCL | O_WRONLY, 0644));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void mkdir_(char **a) { TRY(mkdir(a[0], 0755)); }
static void mknod_(char **a) { TRY(mknod(a[0], S_IFIFO | 0644, 0)); }
static void symlink_at(char **a) { TRY(symlink("/etc/passwd", a[0])); }
static void link_out(char **a) { // carry a file of one's own outside
	writefile("mine", a[1]);
	TRY(link("mine", a[0]));
}
static void dirfd_(char **a) { // climb out of a directory that one holds
	int fd = TRY(open("..", O_PATH | O_DIRECTORY));
	char p[4096];
	snprintf(p, sizeof p, "out/%s", strrchr(a[0], '/') + 1);
	fd = TRY(openat(fd, p, O_WRONLY | O_APPEND));
	TRY(write(fd, a[1], strlen(a[1])));
}
static void setuid_(char **a) { // a set-user-ID copy of a shell for later
	int fd = TRY(open(a[0], O_CREAT | O_WRONLY, 0755));
	copyto("/usr/bin/id", fd);
	TRY(fchmod(fd, 04755));
}
static const struct technique all[] = {
	{"write", write_}, {"open-trunc", trunc_open}, {"truncate", truncate_}, {"chmod", chmod_},
	{"fchmod", fchmod_}, {"fchmodat2", fchmodat2_}, {"chown", chown_}, {"utimes", utimes_}, {"xattr", xattr},
	{"unlink", unlink_}, {"rename-over", rename_over}, {"exchange", exchange}, {"rename-away", rename_away},
	{"hardlink", hardlink}, {"symlink", symlink_}, {"map", map}, {"reopen", reopen}, {"opath", opath},
	{"openat2", openat2_}, {"in-root", in_root}, {"flags", flags}, {"capability", capability},
	{"device", device}, {"born", born}, {"create", create}, {"mkdir", mkdir_}, {"mknod", mknod_},
	{"symlink-at", symlink_at}, {"link-out", link_out}, {"dirfd", dirfd_}, {"setuid", setuid_}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
