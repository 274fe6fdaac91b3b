//go:build linux

package enforce

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// outputLimit is what the quota outputBytes does not count.
const outputLimit = "quota outputBytes: counted once a tick; what is written through memory mappings or by splice is not in the count, nor what a process for whose end its parent does not wait writes in its last tick"

// outputKnown tells whether this kernel counts what its processes write.
func outputKnown() bool {
	_, err := os.Stat("/proc/self/io")
	return err == nil
}

// output is what the tree has written: to files, pipes, terminals and sockets,
// as the kernel accounts it to each process (wchar). The kernel adds what an
// ended process had to whoever waited for it, so those that live hold the sum.
// Where nobody waits (SIGCHLD ignored), or init, which an ordinary user may not
// look into, it is gone: the sum that was there at the tick before is then kept.
type output struct{ last, lost int64 }

func (o *output) seen(sum int64) int64 {
	o.lost += max(0, o.last-sum)
	o.last = sum
	return o.lost + sum
}

// outputNow measures it. A process that lives and cannot be measured is a fault.
func (r *running) outputNow(faults *[]string) int64 {
	pids, err := r.processes()
	if err != nil {
		*faults = append(*faults, "output: "+err.Error())
		return 0
	}
	init := 1
	if r.mark != 0 { // no pid namespace of its own
		init = r.agent.InitPID()
	}
	sum := int64(0)
	for i, pid := range append([]int{init}, pids...) {
		if i > 0 && pid == init {
			continue
		}
		n, err := r.written(pid)
		if i == 0 && errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			*faults = append(*faults, fmt.Sprintf("output of a process: %v", err))
		}
		sum += n
	}
	return r.output.seen(sum)
}

// written is what one process wrote, and those that ended and were waited for
// by it.
func (r *running) written(pid int) (int64, error) {
	text, err := r.readProc(strconv.Itoa(pid) + "/io")
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "wchar: "); ok {
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return 0, errors.New("the kernel does not say")
}
