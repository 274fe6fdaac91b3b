// Package vm runs a program as root under a kernel of its own: a machine that
// QEMU emulates, with a kernel from Debian's packages. It is for tests of what
// the kernel of the machine they run on does not have, or must not lose.
//
// It needs no root and no installed kernel, and never touches the host's: QEMU
// interprets the processor (a boot takes seconds, programs are tens of times
// slower than outside), there is no disk and no network. The Debian packages:
//
//   - qemu-system-x86 (installed by test/run)
//   - linux-image-6.12-cloud-amd64 and linux-image-cloud-amd64 (6.1), which are
//     not installed but downloaded and unpacked into the user's cache directory
//     (exeq-vm) by the first test that wants them; apt must know them
//
// What the program needs of this machine's files, the job names; the machine
// consists of them and of an init (the directory init) that mounts what programs
// expect, runs the job and reports.
package vm
