//go:build linux

package vm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Job is one program and what it needs.
type Job struct {
	Kernel string   // one of Kernels
	Args   []string // the program, as an absolute path of this machine, and its arguments
	Env    []string
	Dir    string // "": /
	// Files of this machine that are there under the same path: programs with
	// the libraries and interpreters they name, directories with all below
	// them. Links on the way are kept.
	Files []string
	// OwnTime: the machine's clock counts the instructions that it executes (two
	// nanoseconds each) and jumps while all of it sleeps, so that nothing there
	// comes late because this machine is busy. What the job measures is then no
	// time at all.
	OwnTime bool
	// Timeout of the job, from its start. Emulation is slow: take minutes.
	Timeout time.Duration
}

// Result is how the job ended.
type Result struct {
	Release string // of the kernel that ran
	Status  int    // exit status; 128 and the signal, as a shell has it
	Output  []byte // what it wrote, both streams
	Boot    time.Duration
	Ran     time.Duration
}

// ErrUnavailable: this machine cannot run one; the error says what is missing.
var ErrUnavailable = errors.New("no virtual machine here")

// errBoot: the job never began.
var errBoot = errors.New("it did not boot")

const bootTimeout = 5 * time.Minute

// Run boots a machine, runs the job in it and reports. A machine that does not
// get to the job is started once more, which emulation sometimes needs; a job
// that began is never run twice. A job that fails is no error: see Status.
func Run(ctx context.Context, j Job) (Result, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return Result{}, fmt.Errorf("%w: qemu-system-x86 is not installed", ErrUnavailable)
	}
	image, err := kernel(ctx, j.Kernel)
	if err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "exeq-vm-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	nonce := rand.Text()
	if err := initramfs(ctx, filepath.Join(dir, "initramfs"), nonce, j); err != nil {
		return Result{}, err
	}
	r, err := boot(ctx, qemu, image, dir, nonce, j)
	if errors.Is(err, errBoot) && ctx.Err() == nil {
		first := err
		if r, err = boot(ctx, qemu, image, dir, nonce, j); err != nil {
			err = fmt.Errorf("%w; and before: %w", err, first)
		}
	}
	return r, err
}

// boot is one attempt.
func boot(ctx context.Context, qemu, image, dir, nonce string, j Job) (Result, error) {
	console, report := filepath.Join(dir, "console"), filepath.Join(dir, "report")
	for _, f := range []string{console, report} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Result{}, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// One processor, interpreted by one thread, without what Debian's QEMU
	// interprets wrongly. bpf among the LSMs is not Debian's default for all
	// of its kernels.
	cmd := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=single", "-smp", "1", "-cpu", "max,-la57,-cx16", "-m", "2048",
		"-kernel", image, "-initrd", filepath.Join(dir, "initramfs"),
		"-append", "console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on lsm=landlock,lockdown,yama,integrity,bpf",
		"-serial", "file:"+console, "-serial", "file:"+report)
	if j.OwnTime {
		cmd.Args = append(cmd.Args, "-icount", "shift=1,sleep=off")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	var r Result
	var why error
	for limit := begun.Add(bootTimeout); why == nil; {
		select {
		case err := <-ended:
			why = fmt.Errorf("the machine ended (%w) %s", err, stderr.Bytes())
			ended <- err
		case <-time.After(100 * time.Millisecond):
		}
		out, _ := os.ReadFile(report)
		if !r.read(out, nonce) && time.Now().Before(limit) {
			continue
		}
		if r.Release != "" && r.Boot == 0 {
			r.Boot = time.Since(begun)
			limit = time.Now().Add(j.Timeout)
		}
		r.Ran = time.Since(begun) - r.Boot
		if r.Status >= 0 && r.Release != "" {
			break
		}
		if why == nil && time.Now().After(limit) {
			why = fmt.Errorf("no result after %s: %w", r.Ran.Round(time.Second), context.DeadlineExceeded)
		}
	}
	cancel()
	<-ended
	switch {
	case r.Release == "":
		log, _ := os.ReadFile(console)
		return Result{}, fmt.Errorf("%w: %w\n%s", errBoot, why, tail(log))
	case r.Status < 0:
		log, _ := os.ReadFile(console)
		return r, fmt.Errorf("the job did not end: %w\n%s\n%s", why, tail(r.Output), tail(log))
	}
	return r, nil
}

// read takes the report: a line that says that the job begins, what it wrote,
// and a line that says how it ended. It tells whether something is new.
func (r *Result) read(out []byte, nonce string) bool {
	had := *r
	r.Status = -1
	start := regexp.MustCompile(`(?m)^exeq-vm ` + nonce + ` began (\S+)\n`)
	end := regexp.MustCompile(`\nexeq-vm ` + nonce + ` ended (\d+)\n`)
	m := start.FindSubmatchIndex(out)
	if m == nil {
		return false
	}
	r.Release = string(out[m[2]:m[3]])
	r.Output = out[m[1]:]
	if m := end.FindSubmatchIndex(r.Output); m != nil {
		r.Status, _ = strconv.Atoi(string(r.Output[m[2]:m[3]]))
		r.Output = r.Output[:m[0]]
	}
	return had.Release != r.Release || had.Status != r.Status
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

// config is what init reads.
type config struct {
	Nonce     string
	Args, Env []string
	Dir       string
}

func (j Job) config(nonce string) ([]byte, error) {
	return json.Marshal(config{nonce, j.Args, j.Env, j.Dir})
}
