// Package spawn runs pre-assembled lists of system calls in raw clones of this
// process, without a second program and without executing itself again.
//
// A clone of a Go process has one thread and no runtime: it may not allocate,
// grow its stack or take a lock. So everything that a child does is data, an
// array of [Op] in memory that it shares with its parent, and the code that
// walks the array is nosplit from end to end. What varies between programs is
// assembled in the parent, where Go is whole; a child that is asked for
// something new gets a new list.
package spawn
