//go:build linux

package filter

import "golang.org/x/sys/unix"

// Mark is RLIMIT_LOCKS, which has had no effect since Linux 2.4: with
// Options.Shared its hard limit stays what it was at the start, so that the
// execution's processes can be known by it.
const Mark = 10

// shared keeps apart what namespaces would.
func (t *table) shared(o Options) {
	const (
		byNumber = "shmat shmctl shmdt shmget msgctl msgget msgrcv msgsnd semctl semget semop semtimedop " +
			"mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink"
		ofFirst  = "sched_setaffinity sched_setattr sched_setparam sched_setscheduler migrate_pages move_pages"
		ofSecond = "setpriority ioprio_set"
	)
	if !o.Shared {
		for _, calls := range []string{byNumber, ofFirst, ofSecond, "listen prlimit64 setrlimit"} {
			t.each(calls, Allow, "")
		}
		return
	}
	t.each(byNumber, enosys, "memory, queues and semaphores that other processes of the user share by number")
	const whyOthers = "acts on processes outside the execution"
	self := func(i int) Arg { return is(i, 0) }
	t.each(ofFirst, Allow, "", self(0))
	t.each(ofFirst, eperm, whyOthers)
	const oneProcess = 1 // IOPRIO_WHO_PROCESS
	t.add("setpriority", Allow, "", is(0, unix.PRIO_PROCESS), self(1))
	t.add("ioprio_set", Allow, "", is(0, oneProcess), self(1))
	t.each(ofSecond, eperm, whyOthers)
	const whyMark = "the limit by which the execution's processes are known"
	t.add("prlimit64", eperm, whyMark, is(1, Mark), notNull(2))
	t.add("setrlimit", eperm, whyMark, is(0, Mark))
	t.add("prlimit64", Allow, "", self(0))
	t.add("prlimit64", eperm, whyOthers)
	t.add("setrlimit", Allow, "")
	t.add("listen", Errno(unix.EACCES), "a listener would be reached from outside")
}
