//go:build linux

package enforce

import "testing"

// TestMayItRun: who asks whether a program may be executed is told what
// executing it would be, not that its mount is noexec.
func TestMayItRun(t *testing.T) {
	b := newBox(t)
	b.copy("/usr/bin/true", "program")
	b.write("script", "#!/bin/sh\necho ran\n", 0o755)
	b.write("data", "data", 0o644)
	b.write("not", "#!/bin/sh\n", 0o755)
	b.rights = rightsOf("/=r", "/usr=rX", "/dev=rw", b.dir+"=rwx", b.path("not")+"=rw")
	const ask = `for f in program script ./data not . /usr/bin/true gone; do test -x $f && echo $f; done; test -r script -a -x script && echo both`
	b.want(0, "program\nscript\n.\n/usr/bin/true\nboth\n", "bash", "-c", ask)
	b.want(0, "True False True False\n", "/usr/bin/python3", "-c", `import os
x = lambda f, **k: os.access(f, os.X_OK, **k)
os.symlink("script", "link"); os.symlink("data", "other")
print(x("link"), x("other"), x("link", effective_ids=True), os.access("data", os.R_OK | os.X_OK))`)
	b.want(0, "ran\n", "bash", "-c", `PATH=$PWD:$PATH; type -P script >/dev/null && script`)
}
