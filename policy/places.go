package policy

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/exeq/exeq"
)

// absolute gives the path of a place in the learned execution.
func (l *learner) absolute(u types.EntityUID) string {
	switch u.Type {
	case typeWorkspace:
		return join(l.context.Workspace, string(u.ID))
	case typeHome:
		return join(l.context.Home, string(u.ID))
	case typeTmp:
		return join(l.context.Tmp, string(u.ID))
	}
	return string(u.ID)
}

// exact names one path, relative to the place it lies in.
func (l *learner) exact(p string) types.EntityUID {
	c := l.context
	for _, at := range []struct {
		t   types.EntityType
		dir string
	}{{typeWorkspace, c.Workspace}, {typeTmp, c.Tmp}, {typeHome, c.Home}} {
		if rel, ok := relative(at.dir, p); ok && at.dir != "/" {
			return types.EntityUID{Type: at.t, ID: types.String(rel)}
		}
	}
	return types.EntityUID{Type: typePath, ID: types.String(p)}
}

// programs gives each program that ran, exactly. Of what was built below tmp,
// which has a new name each time, the place is named, and so it is of what the
// run itself made in the workspace: kernel rules cannot be put on a file that
// is not there at the start.
func (l *learner) programs() []types.EntityUID {
	var out []types.EntityUID
	for _, p := range l.seen(exeq.ActionExec) {
		u := l.exact(p)
		if u.Type == typeTmp || u.Type == typeWorkspace && l.made(p) {
			u.ID = "."
		}
		out = append(out, u)
	}
	return l.outermost(out)
}

// made reports whether a workspace file, or a directory on the way to it, was
// written.
func (l *learner) made(p string) bool {
	for ; p != l.context.Workspace && p != "/"; p = path.Dir(p) {
		if l.touched[exeq.ActionWrite][p] {
			return true
		}
	}
	return false
}

// files groups the paths of an action, and gives apart the directories that
// contain too much to be granted whole (an ancestor of the workspace or of the
// home directory, a top-level directory): they are granted alone.
func (l *learner) files(action string) (places, alone []types.EntityUID) {
	t := typePath
	if action == exeq.ActionMap {
		t = typeProgram
	}
	for _, p := range l.seen(action) {
		if l.tooWide(p) {
			alone = append(alone, types.EntityUID{Type: t, ID: types.String(p)})
		}
	}
	return l.group(action), alone
}

func (l *learner) tooWide(p string) bool {
	for _, place := range []string{l.context.Workspace, l.context.Home, l.context.Tmp} {
		if _, ok := relative(p, place); ok && p != l.context.Workspace && p != l.context.Tmp {
			return true
		}
	}
	if rel, ok := relative(l.context.Home, p); ok {
		if _, inside := relative(l.context.Workspace, p); inside {
			return false
		}
		return slices.Contains([]string{".config", ".local", ".local/share", ".local/state", ".cache", "Library"}, rel)
	}
	return slices.Contains([]string{"/", "/etc", "/var", "/var/lib", "/var/cache", "/run", "/dev", "/home", "/tmp", "/opt", "/srv", "/mnt"}, p)
}

// group names the directories that an action touched: system trees whole,
// toolchains and caches of the home directory by their directory, single files
// elsewhere, the workspace by its top-level entries for writes and whole for
// reads.
func (l *learner) group(action string) []types.EntityUID {
	var out, top []types.EntityUID
	for _, p := range l.seen(action) {
		if l.tooWide(p) {
			continue
		}
		u := l.exact(p)
		switch u.Type {
		case typeTmp:
			u.ID = "."
		case typeHome:
			u.ID = types.String(homeGroup(string(u.ID)))
		case typePath:
			u.ID = types.String(systemGroup(string(u.ID), action))
		case typeWorkspace:
			if action == exeq.ActionRead {
				u.ID = "."
			} else {
				top = append(top, u)
				continue
			}
		}
		out = append(out, u)
	}
	return l.outermost(append(out, topLevel(top)...))
}

// temporary matches names that programs make up anew each time.
var temporary = regexp.MustCompile(`(^sed\w{6}$)|(^\d{4,}$)|(\.(tmp|swp|swx|lock|part|bak)$)|(~$)|([._-][A-Za-z0-9]{6,}$)|(^\.#)`)

// topLevel names the first elements of workspace paths; a file made directly
// in the workspace under a made-up name, or many of them, means all of it.
func topLevel(us []types.EntityUID) []types.EntityUID {
	var out []types.EntityUID
	files := 0
	for _, u := range us {
		first, _, deeper := strings.Cut(string(u.ID), "/")
		if !deeper {
			files++
			if first == "." || temporary.MatchString(first) {
				return []types.EntityUID{{Type: typeWorkspace, ID: "."}}
			}
		}
		out = append(out, types.EntityUID{Type: typeWorkspace, ID: types.String(first)})
	}
	slices.SortFunc(out, compareUID)
	if out = slices.Compact(out); files > 8 || len(out) > 12 {
		return []types.EntityUID{{Type: typeWorkspace, ID: "."}}
	}
	return out
}

// homeGroup keeps a single file in the home directory and in directories of
// keys exact, and names the tool's directory otherwise.
func homeGroup(rel string) string {
	parts := strings.Split(rel, "/")
	if slices.Contains([]string{".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", "Library"}, parts[0]) {
		return rel
	}
	depth := 1
	switch parts[0] {
	case ".config", ".cache", ".local":
		depth = 2
		if len(parts) > 1 && (parts[1] == "share" || parts[1] == "state") {
			depth = 3
		}
	}
	return strings.Join(parts[:min(depth, len(parts))], "/")
}

// systemGroup names the system tree that a path lies in, or the path itself
// where trees hold secrets or nothing in common. Of a library it names the
// directory, unless programs live there.
func systemGroup(p string, action string) string {
	switch action {
	case exeq.ActionWrite:
		if rel, ok := relative("/dev/pts", p); ok && rel != "." {
			return "/dev/pts"
		}
		return p
	case exeq.ActionMap:
		if dir := path.Dir(p); strings.Contains(dir, "/lib") && path.Base(dir) != "bin" && path.Base(dir) != "sbin" {
			return dir
		}
		return p
	}
	for _, tree := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/proc", "/sys", "/dev/pts",
		"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives", "/etc/fonts", "/etc/ld.so.conf.d", "/etc/profile.d",
		"/etc/python3", "/etc/java", "/etc/terminfo", "/etc/bash_completion.d", "/var/lib/dpkg", "/var/lib/rpm", "/var/cache/fontconfig"} {
		if _, ok := relative(tree, p); ok {
			return tree
		}
	}
	parts := strings.Split(p, "/")
	if (parts[1] == "opt" || parts[1] == "snap") && len(parts) > 3 {
		return strings.Join(parts[:3], "/")
	}
	return p
}

// outermost sorts, and drops each place that lies in another.
func (l *learner) outermost(us []types.EntityUID) []types.EntityUID {
	slices.SortFunc(us, compareUID)
	us = slices.Compact(us)
	var out []types.EntityUID
	for _, u := range us {
		p := l.absolute(u)
		if !slices.ContainsFunc(us, func(o types.EntityUID) bool {
			above := l.absolute(o)
			_, in := relative(above, p)
			return o != u && in && above != p
		}) {
			out = append(out, u)
		}
	}
	return out
}
