// Package filter is the system call policy of an execution: a table of rules in
// words, assembled into one seccomp program.
//
// The table is an allow-list. A system call that no row names, so also every
// one that Linux gains after this build, answers ENOSYS: programs then take the
// path they take on an older kernel, and nothing reaches the kernel that nobody
// has judged. A deny-list would be shorter and would have let io_uring through
// for years.
//
// Rows are tried in order and the first match decides. What is refused for
// being dangerous answers EPERM, what has an ordinary fallback answers ENOSYS,
// a system call of another architecture kills the process: its numbers mean
// something else, so no rule could judge it.
//
// seccomp sees registers, never memory. Whatever hangs on a path, a socket
// address or a structure is either put to the supervisor (the Notify classes)
// or refused whole (clone3, openat2).
package filter
