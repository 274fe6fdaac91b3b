//go:build linux

package races

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/test/house"
)

// races are pairs of what is swapped (testdata/swap.c) and the way of executing
// meanwhile (testdata/racer.c); "outside-": a process of the same user's outside
// the execution swaps, which holds to nothing.
var races = []race{
	{swap: "exchange", way: "fork"}, {swap: "exchange", way: "outside-fork"}, {swap: "exchange", way: "sibling"}, {swap: "exchange", way: "daemon"}, {swap: "exchange", way: "killed"}, {swap: "exchange", way: "struck"},
	{swap: "symlink", way: "fork"}, {swap: "symlink", way: "outside-daemon"}, {swap: "directory", way: "fork"},
	{swap: "replace", way: "fork"}, {swap: "replace", way: "outside-fork"},
	{swap: "write", way: "fork"}, {swap: "write", way: "outside-fork", flags: hidden}, {swap: "write", way: "daemon"}, {swap: "write", way: "killed"},
	{swap: "interpreter", way: "fork"}, {swap: "interpreter", way: "outside-fork"}, {swap: "script", way: "fork"},
	{swap: "library", way: "fork"}, {swap: "library", way: "outside-fork"}, {swap: "library-write", way: "fork"},
	{swap: "build", way: "fork"}, {swap: "self", way: "chain"},
	{swap: "memory", way: "leader"}, {swap: "memory", way: "thread"}, {swap: "memory", way: "vfork"},
	{swap: "descriptor", way: "leader"}, {swap: "descriptor", way: "thread"},
	{swap: "bind", way: "outside-fork", flags: hidden | superuser}, {swap: "overlay", way: "outside-fork", flags: hidden | superuser},
}

type race struct {
	swap, way string
	flags     int
	lapses    int
}

const (
	// hidden: where an execution has mounts of its own, what is done outside
	// need not reach it, and nothing changes for it.
	hidden = 1 << iota
	// superuser: nobody else can.
	superuser
)

// outside is who else swaps.
func (r race) outside() bool { return strings.HasPrefix(r.way, "outside-") }

// tally is what testdata/racer.h counts.
type tally struct{ Tries, Denied, Missed, Swaps, Hops int64 }

// readTally reads the file in which it counts; before there is one, nothing is
// counted.
func readTally(ws string) (n tally) {
	if b, err := os.ReadFile(filepath.Join(ws, "tally")); err == nil {
		binary.Decode(b, binary.NativeEndian, &n)
	}
	return n
}

var arenas atomic.Int64

// run lets one race run and gives what was counted, and how often the allowed
// and the forbidden program made their first system call.
func (r race) run(h *house.House, n int, governed bool) (c tally, good, bad int) {
	h.T.Helper()
	ws := arena(h, fmt.Sprintf("%s-%s-%d", r.swap, r.way, arenas.Add(1)))
	racer := func(args ...string) {
		h.T.Helper()
		c := h.As("./racer", args...)
		c.Dir = ws
		if out, err := c.CombinedOutput(); err != nil {
			h.T.Fatalf("racer %v: %v\n%s", args, err, out)
		}
	}
	racer("prepare", r.swap)
	if r.outside() {
		other := h.As("./racer", "swap", r.swap)
		other.Dir = ws
		in, err := other.StdinPipe()
		must(h.T, err)
		must(h.T, other.Start())
		defer other.Wait()
		defer in.Close()
		within(h.T, "a swap", func() bool { return readTally(ws).Swaps > 0 })
	}
	argv := []string{"./racer", "race", r.swap, r.way, fmt.Sprint(n)}
	if governed {
		p := only(h, ws, "racer", "good", "good.so", "host", "script", "script-b")
		argv = append([]string{filepath.Join(world, "exeq"), "run", "--tier", h.Tier.String(), "--policy", p, "--"}, argv...)
	}
	cmd := h.As(argv[0], argv[1:]...)
	cmd.Dir = ws
	// A file, which whoever is still there when the run has ended writes to.
	out, err := os.OpenFile(ws+".out", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	must(h.T, err)
	defer out.Close()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &said
	must(h.T, cmd.Start())
	late := time.AfterFunc(5*patience, func() { cmd.Process.Kill() }) // it hangs
	err = cmd.Wait()
	late.Stop()
	if r.lapses < 3 && house.Lapsed(said.Bytes()) {
		h.T.Logf("the machine is too busy: %s", tail(said.Bytes()))
		r.lapses++
		return r.run(h, n, governed)
	}
	if err != nil {
		h.T.Fatalf("%v: %v\n%s", argv, err, tail(said.Bytes()))
	}
	out.Seek(0, io.SeekStart)
	b, err := io.ReadAll(out)
	must(h.T, err)
	good, bad = bytes.Count(b, []byte("G")), bytes.Count(b, []byte("B"))
	if good+bad != len(b) {
		h.T.Errorf("it wrote %q", tail(b))
	}
	return readTally(ws), good, bad
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// each runs f for every race that the house's user can make.
func each(h *house.House, f func(h *house.House, r race)) {
	for _, r := range races {
		if r.flags&superuser != 0 && h.UID != 0 {
			continue
		}
		h.T.Run(r.swap+" "+r.way, func(t *testing.T) {
			t.Parallel()
			f(h.For(t), r)
		})
	}
}

// TestControls: ungoverned, both programs run in every race, or it is none.
func TestControls(t *testing.T) {
	each(house.New(t, world, os.Getuid(), exeq.TierRootless), func(h *house.House, r race) {
		var c tally
		var good, bad int
		for range 20 { // a busy machine may let one of the two wait for long
			if c, good, bad = r.run(h, 400, false); good > 0 && bad > 0 && c.Swaps > 0 {
				return
			}
		}
		h.T.Errorf("%d allowed and %d forbidden programs ran: %+v", good, bad, c)
	})
}

// TestRaces: governed, the forbidden program never makes a system call; the
// allowed one does, and what was tried while the other stood there is refused.
func TestRaces(t *testing.T) {
	n := house.Rounds(150)
	for _, tier := range house.Tiers {
		for user, uid := range house.Users() {
			t.Run(tier.String()+" "+user, func(t *testing.T) {
				var tries, ran, denied, swaps, wrong atomic.Int64
				t.Cleanup(func() { // once all have ended
					t.Logf("%d rounds: the allowed program ran %d times, %d were refused; %d swaps; forbidden programs that reached their first system call: %d",
						tries.Load(), ran.Load(), denied.Load(), swaps.Load(), wrong.Load())
				})
				each(house.New(t, world, uid, tier), func(h *house.House, r race) {
					c, good, bad := r.run(h, n, true)
					tries.Add(c.Tries - c.Missed)
					ran.Add(int64(good))
					denied.Add(c.Denied)
					swaps.Add(c.Swaps)
					wrong.Add(int64(bad))
					h.T.Logf("%s %s: %d ran, %+v", r.swap, r.way, good, c)
					if bad != 0 {
						h.T.Errorf("%d forbidden programs reached their first system call", bad)
					}
					both := good > 0 && c.Denied > 0
					if r.flags&hidden != 0 && tier != exeq.TierNested { // it is what it was at the start
						both = good > 0 || c.Denied > 0
					}
					if !both || c.Swaps == 0 || c.Tries-c.Missed < int64(n) {
						h.T.Error("the race was not on")
					}
				})
			})
		}
	}
}
