// Package node is the privileged daemon: it takes permits over a unix socket,
// checks them itself, and makes the kernel the place where they are enforced.
//
// It verifies and burns a permit (package permit), puts the execution, which
// waits unreleased, into a cgroup of its own behind the gate of enforce/bpf,
// sees the gate bite there, and signs that it did. From then on nothing
// executes there but what was approved within the permit's rights, and it lives
// by a lease on CLOCK_BOOTTIME that only the issuer's signature under a fresh
// challenge extends. Whoever carries messages is believed nothing: the
// supervisor can only narrow, and by keeping silent only end.
//
// It knows no policy, has no network, and keeps nothing but its key: what it
// holds is in the kernel. A daemon that starts ends everything that an earlier
// one held before it serves, and its burn list has a new epoch, so that no
// earlier permit can be used again, whatever was restored from where.
package node
