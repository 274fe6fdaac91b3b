//go:build linux

package enforce

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// Opens both sides of a new terminal by name.
	helpers["holdpty"] = func(a []string) error {
		m, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer m.Close()
		s, err := openSlave(m)
		if err != nil {
			return err
		}
		return s.Close()
	}
}

func openSlave(m *os.File) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0)
}

// What others have in /dev/shm is theirs, what the execution makes there works.
func TestNestedSharedFiles(t *testing.T) {
	inNested(t)
	b := newBox(t)
	theirs := filepath.Join("/dev/shm", filepath.Base(filepath.Dir(filepath.Dir(b.dir)))+"-theirs")
	if err := os.WriteFile(theirs, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	own := theirs + "-own"
	t.Cleanup(func() {
		os.Remove(theirs)
		os.Remove(own)
		os.Remove(own + "2")
	})
	b.rights = rightsOf("/=r", "/usr=rX", "/dev/null=rw", "/dev/shm=rw", b.dir+"=rwx")
	for _, try := range []string{
		"cat " + theirs, "cat <>" + theirs, "echo x >>" + theirs, "rm " + theirs, "mv " + theirs + " " + own, "ln " + theirs + " " + own,
		"truncate -s 0 " + theirs, "ln -s " + theirs + " " + own + " && cat <>" + own, "echo x >" + own + "2; mv " + own + "2 " + theirs,
	} {
		if code, out := b.run("sh", "-c", try); code == 0 || strings.Contains(out, "secret") {
			t.Errorf("%s succeeded: %s", try, out)
		}
	}
	if got, err := os.ReadFile(theirs); err != nil || string(got) != "secret" {
		t.Errorf("it is now %q, %v", got, err)
	}
	os.Remove(own)
	os.Remove(own + "2")
	b.want(0, "own\nagain\n", "sh", "-ec", "echo own >"+own+"; cat "+own+"; mv "+own+" "+own+"2; echo again >"+own+"2; cat "+own+"2; rm "+own+"2; mkdir "+own+"; rmdir "+own)
}

// A terminal that somebody else opened can neither be read nor written; one of
// the execution's own can.
func TestNestedTerminals(t *testing.T) {
	inNested(t)
	b := newBox(t)
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := openSlave(m)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	os.Chmod(s.Name(), 0o666)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev/null=rw", "/dev/ptmx=rw", "/dev/pts=rw", b.dir+"=rwx")
	b.attack("write", s.Name())
	for _, try := range []string{"echo x >" + s.Name(), "exec 3<>" + s.Name(), "exec 3<" + s.Name()} {
		if code, out := b.run("sh", "-c", try); code == 0 {
			t.Errorf("%s succeeded: %s", try, out)
		}
	}
	b.works("holdpty")
}
