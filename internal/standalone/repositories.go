package standalone

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exeq/exeq"
)

// Git runs programs that a repository's own files name (fsmonitor, hooks,
// filters, pagers), and finds them by more ways than .git/config: a .git file,
// commondir, the worktrees and modules below .git, and the embedded
// repositories of the index, in which `git status` outside starts git again.

// gitGuarded are the names in a git directory that decide what git runs.
var gitGuarded = []string{"config", "config.worktree", "hooks", "commondir"}

// maxRepositories bounds how many are looked at.
const maxRepositories = 500

// repositories puts on each repository that belongs to the workspace's what
// policy says of .git in it. A policy that leaves .git/config open is obeyed.
func repositories(r *exeq.Rights, workspace string) *exeq.Rights {
	git := filepath.Join(workspace, ".git")
	config := lost(r, exeq.EncodeBytes(filepath.Join(git, "config")))
	if !config.at.Write {
		return r
	}
	// Whoever may not write the configuration may not put another in its place.
	out := take(r, git, pinned)
	for _, name := range gitGuarded {
		out = take(out, filepath.Join(git, name), config)
	}
	s := scan(workspace)
	for _, dir := range s.dirs {
		for _, name := range gitGuarded {
			out = take(out, filepath.Join(dir, name), config)
		}
	}
	for _, p := range s.pointers {
		out = take(out, p, config)
	}
	for _, p := range s.entries {
		out = take(out, p, pinned)
	}
	for _, p := range s.named {
		out = take(out, p, config)
	}
	return out
}

// Embedded are the .git entries of the repositories that the workspace's
// index, or that of a repository in it, embeds, as they are now.
func Embedded(workspace string) []string { return scan(workspace).entries }

// repositoryScan is what belongs to the repository of a workspace.
type repositoryScan struct {
	dirs     []string // git directories
	entries  []string // the .git of embedded repositories, files or directories
	pointers []string // files of linked worktrees that say where the rest is
	named    []string // files and directories that a configuration names
	seen     map[string]bool
}

func scan(workspace string) *repositoryScan {
	s := &repositoryScan{seen: map[string]bool{}}
	s.worktree(workspace)
	return s
}

// worktree looks at the repository that is checked out at top.
func (s *repositoryScan) worktree(top string) {
	if dir := gitDir(filepath.Join(top, ".git")); dir != "" {
		s.repository(dir, top)
	}
}

// gitDir is where a .git entry leads.
func gitDir(entry string) string {
	info, err := os.Stat(entry)
	if err != nil {
		return ""
	}
	if info.IsDir() {
		return entry
	}
	if !info.Mode().IsRegular() {
		return ""
	}
	b, err := readSome(entry, 4096)
	to, ok := strings.CutPrefix(string(b), "gitdir: ")
	if err != nil || !ok {
		return ""
	}
	return from(filepath.Dir(entry), strings.TrimRight(to, "\r\n"))
}

// from resolves a path that git reads in dir, symbolic links too, as far as it
// exists.
func from(dir, p string) string {
	if !filepath.IsAbs(p) {
		p = filepath.Join(dir, p)
	}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	return filepath.Clean(p)
}

func (s *repositoryScan) repository(dir, top string) {
	if s.seen[dir] || len(s.seen) >= maxRepositories {
		return
	}
	s.seen[dir] = true
	s.dirs = append(s.dirs, dir)
	s.configured(dir, top)
	if b, err := readSome(filepath.Join(dir, "commondir"), 4096); err == nil {
		s.repository(from(dir, strings.TrimRight(string(b), "\r\n")), "")
	}
	for _, w := range subdirectories(filepath.Join(dir, "worktrees")) {
		s.dirs = append(s.dirs, w)
		s.pointers = append(s.pointers, filepath.Join(w, "gitdir"))
	}
	s.modules(filepath.Join(dir, "modules"), 0)
	if top == "" {
		return
	}
	for _, link := range gitlinks(dir) {
		if at := filepath.Join(top, link); below(at, top) && at != top && len(s.entries) < maxRepositories {
			s.entries = append(s.entries, filepath.Join(at, ".git"))
			s.worktree(at)
		}
	}
}

// modules finds the git directories of submodules, whose names may hold slashes.
func (s *repositoryScan) modules(dir string, depth int) {
	for _, d := range subdirectories(dir) {
		if _, err := os.Lstat(filepath.Join(d, "HEAD")); err == nil {
			s.repository(d, "")
		} else if depth < 8 {
			s.modules(d, depth+1)
		}
	}
}

// configured notes hooks and included files that lie where they can be written.
func (s *repositoryScan) configured(dir, top string) {
	b, err := readSome(filepath.Join(dir, "config"), 1<<20)
	if err != nil {
		return
	}
	section := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(line)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		if value == "" || strings.HasPrefix(value, "~") {
			continue
		}
		switch key = strings.ToLower(strings.TrimSpace(key)); {
		case key == "hookspath" && strings.HasPrefix(section, "[core"):
			if top == "" && !filepath.IsAbs(value) {
				continue // relative to a worktree that we do not know
			}
			// Not the whole repository, whatever it says.
			if p := from(top, value); !below(top, p) || top == "" {
				s.named = append(s.named, p)
			}
		case key == "path" && strings.HasPrefix(section, "[include"):
			s.named = append(s.named, from(dir, value))
		}
	}
}

// subdirectories lists the directories in a directory.
func subdirectories(dir string) (out []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && len(out) < maxRepositories {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// maxIndexBytes bounds what is read of one index.
const maxIndexBytes = 256 << 20

// gitlinks are the paths at which an index embeds another repository.
func gitlinks(dir string) (out []string) {
	files := []string{filepath.Join(dir, "index")}
	shared, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "sharedindex.*"))
	for _, name := range append(files, shared...) {
		b, err := readSome(name, maxIndexBytes)
		if err != nil || !bytes.Contains(b, []byte{0, 0, 0xe0, 0}) {
			continue // no entry has a gitlink's mode
		}
		// A digest's length is the repository's; the wrong one reads nonsense
		// that is no path of ours.
		out = append(out, linksOf(b, 20)...)
		out = append(out, linksOf(b, 32)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func escapeGlob(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

// linksOf reads an index of version 2 to 4; see git's gitformat-index.
func linksOf(b []byte, digest int) (out []string) {
	if len(b) < 12 || string(b[:4]) != "DIRC" {
		return nil
	}
	version, count := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	at := 12
	var previous []byte
	for range count {
		start, head := at, 40+digest+2
		if at+head > len(b) {
			return out
		}
		mode, flags := binary.BigEndian.Uint32(b[at+24:]), binary.BigEndian.Uint16(b[at+head-2:])
		at += head
		if version >= 3 && flags&0x4000 != 0 {
			at += 2
		}
		var name []byte
		if version == 4 {
			strip, n := offset(b[min(at, len(b)):])
			if n == 0 || strip > len(previous) {
				return out
			}
			at += n
			name = append(name, previous[:len(previous)-strip]...)
		}
		if at > len(b) {
			return out
		}
		end := bytes.IndexByte(b[at:], 0)
		if end < 0 {
			return out
		}
		name = append(name, b[at:at+end]...)
		at += end + 1
		if version < 4 {
			at = start + (at-1-start+8)&^7
		}
		previous = name
		if mode&0o170000 == 0o160000 && len(name) > 0 {
			out = append(out, string(name))
		}
	}
	return out
}

// offset reads git's variable-length number; n is 0 where there is none.
func offset(b []byte) (v, n int) {
	for n < len(b) && n < 5 {
		c := b[n]
		n++
		v |= int(c & 0x7f)
		if c&0x80 == 0 {
			return v, n
		}
		v = (v + 1) << 7
	}
	return 0, 0
}

// readSome reads a regular file of at most limit bytes.
func readSome(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, os.ErrInvalid
	}
	return os.ReadFile(name)
}
