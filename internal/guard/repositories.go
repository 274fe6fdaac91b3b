package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/exeq/exeq"
)

// Git runs programs that a repository's own files name (fsmonitor, hooks,
// filters, pagers), and finds them by more ways than .git/config: a .git file,
// commondir, the worktrees and modules below .git, and the embedded
// repositories of the index, in which `git status` outside starts git again.

// gitGuarded are the names in a git directory that decide what git runs.
var gitGuarded = []string{"config", "config.worktree", "hooks", "commondir"}

// repositoryLosses put on each repository that belongs to the workspace's what
// policy says of .git in it. A policy that leaves .git/config open is obeyed.
// What cannot be looked at is an error: an agent can fill every limit, and what
// then went unkept is what it would write next.
func (s *Sight) repositoryLosses(r *exeq.Rights) (out losses, err error) {
	workspace := s.at.Workspace
	git := filepath.Join(workspace, ".git")
	config := lost(r, exeq.EncodeBytes(filepath.Join(git, "config")))
	if !config.at.Write {
		return nil, nil
	}
	found := s.seen().repositories
	if err = found.err; err == nil {
		for _, p := range found.wide {
			if r.Lookup(exeq.EncodeBytes(p) + "/\x00").Write {
				err = fmt.Errorf("core.hooksPath of %s is %s, which holds the work itself, so that its hooks cannot be kept: name a directory of its own for them", exeq.EncodeBytes(workspace), exeq.EncodeBytes(p))
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("git repositories of the workspace cannot be kept as policy says: %w", err)
	}
	// Whoever may not write the configuration may not put another in its place.
	out.take(git, pinned)
	for _, dir := range append([]string{git}, found.dirs...) {
		for _, name := range gitGuarded {
			out.take(filepath.Join(dir, name), config)
		}
	}
	for _, p := range slices.Concat(found.pointers, found.named) {
		out.take(p, config)
	}
	for _, p := range slices.Concat(found.entries, found.absent) {
		out.take(p, pinned)
	}
	return out, nil
}

// repositoryScan is what belongs to the repository of a workspace.
type repositoryScan struct {
	workspace string
	dirs      []string // git directories
	entries   []string // the .git of embedded repositories, files or directories
	linked    []string // the .git of linked worktrees, which need not be there
	absent    []string // places of embedded repositories that are not there, not all
	pointers  []string // files of linked worktrees that say where the rest is
	named     []string // files and directories that a configuration names
	wide      []string // directories of hooks that hold a worktree
	seen      map[[2]string]bool
	read      map[[2]string]bool // configurations
	listed    int                // directories
	err       error              // why this is not all
}

func scan(workspace string) *repositoryScan {
	s := &repositoryScan{workspace: workspace, seen: map[[2]string]bool{}, read: map[[2]string]bool{}}
	s.worktree(workspace)
	return s
}

// refuse notes the first reason for which the scan is not complete.
func (s *repositoryScan) refuse(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// content reads a file of git's that need not be there.
func (s *repositoryScan) content(name string, limit int64) []byte {
	b, err := readSome(name, limit)
	if err != nil && !missing(err) {
		s.refuse("%s: %w: mend or remove it", exeq.EncodeBytes(name), err)
	}
	return b
}

// pointer reads a file that holds a path, as git does: to the first NUL.
func (s *repositoryScan) pointer(name string) string {
	p, _, _ := strings.Cut(string(s.content(name, exeq.MaxGitPointerBytes)), "\x00")
	return strings.TrimRight(p, "\r\n")
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// worktree looks at the repository that is checked out at top.
func (s *repositoryScan) worktree(top string) {
	if dir := s.gitDir(filepath.Join(top, ".git")); dir != "" {
		s.repository(dir, top)
	}
}

// gitDir is where a .git entry leads.
func (s *repositoryScan) gitDir(entry string) string {
	info, err := os.Stat(entry)
	switch {
	case err != nil && !missing(err):
		s.refuse("%s: %w", exeq.EncodeBytes(entry), err)
		return ""
	case err != nil || !info.IsDir() && !info.Mode().IsRegular():
		return "" // nor does git follow it
	case info.IsDir():
		return entry
	}
	to, ok := strings.CutPrefix(s.pointer(entry), "gitdir: ")
	if !ok || to == "" {
		return ""
	}
	return from(filepath.Dir(entry), to)
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
	if s.err != nil || s.seen[[2]string{dir, top}] {
		return
	}
	s.seen[[2]string{dir, top}] = true
	if !s.keep(dir) {
		return
	}
	s.configured(filepath.Join(dir, "config"), top)
	s.configured(filepath.Join(dir, "config.worktree"), top)
	if common := s.pointer(filepath.Join(dir, "commondir")); common != "" {
		// Its hooks are those of this worktree too.
		s.repository(from(dir, common), "")
		s.configured(filepath.Join(from(dir, common), "config"), top)
	}
	for _, w := range s.subdirectories(filepath.Join(dir, "worktrees")) {
		if !s.keep(w) {
			return
		}
		at := filepath.Join(w, "gitdir")
		s.pointers = append(s.pointers, at)
		if p := s.pointer(at); p != "" {
			entry := from(w, p)
			linked := filepath.Dir(entry)
			if !slices.Contains(s.linked, entry) {
				s.linked = append(s.linked, entry)
			}
			s.configured(filepath.Join(dir, "config"), linked)
			s.configured(filepath.Join(w, "config.worktree"), linked)
			if below(linked, s.workspace) {
				s.worktree(linked) // its index may embed others
			}
		}
		s.modules(filepath.Join(w, "modules"), 0) // each worktree has its own
	}
	s.modules(filepath.Join(dir, "modules"), 0)
	if top == "" {
		return
	}
	for _, link := range s.gitlinks(dir) {
		at := filepath.Join(top, link)
		if !below(at, top) || at == top {
			continue
		}
		entry := filepath.Join(at, ".git")
		if _, err := os.Lstat(entry); err != nil && (missing(err) || errors.Is(err, syscall.ENAMETOOLONG)) {
			// An index can name any number of these. What is made there
			// later is said at the end of the run.
			if len(s.absent) < exeq.MaxRepositories {
				s.absent = append(s.absent, entry)
			}
			continue
		}
		if len(s.entries) >= exeq.MaxRepositories {
			s.refuse("the git indexes embed more than %d repositories: remove those that do not belong (git rm --cached)", exeq.MaxRepositories)
			return
		}
		s.entries = append(s.entries, entry)
		s.worktree(at)
	}
}

// keep notes a git directory, unless there are too many.
func (s *repositoryScan) keep(dir string) bool {
	if slices.Contains(s.dirs, dir) {
		return true
	}
	if len(s.dirs) >= exeq.MaxRepositories {
		s.refuse("more than %d git directories belong to it, submodules and linked worktrees counted: remove those that are not needed (in .git/modules and .git/worktrees)", exeq.MaxRepositories)
		return false
	}
	s.dirs = append(s.dirs, dir)
	return true
}

// modules finds the git directories of submodules, whose names may hold slashes.
func (s *repositoryScan) modules(dir string, depth int) {
	for _, d := range s.subdirectories(dir) {
		if _, err := os.Lstat(filepath.Join(d, "HEAD")); err == nil {
			s.repository(d, "")
		} else if depth >= maxModuleDepth {
			s.refuse("%s: directories below one another more than %d deep: remove it", exeq.EncodeBytes(d), maxModuleDepth)
		} else {
			s.modules(d, depth+1)
		}
		if s.err != nil {
			return
		}
	}
}

// maxModuleDepth is how many slashes a submodule's name may hold.
const maxModuleDepth = 32

// configured notes hooks and included files, whatever the condition, that a
// configuration names.
func (s *repositoryScan) configured(file, top string) {
	if s.err != nil || s.read[[2]string{file, top}] {
		return
	}
	s.read[[2]string{file, top}] = true
	if len(s.read) > 8*exeq.MaxRepositories {
		s.refuse("git configurations include one another too often")
		return
	}
	for _, c := range settings(s.content(file, exeq.MaxGitConfigBytes)) {
		if c.value == "" {
			continue
		}
		value := c.value
		if rest, ok := strings.CutPrefix(value, "~/"); ok {
			value = filepath.Join(os.Getenv("HOME"), rest)
		}
		switch {
		case c.section == "core" && c.subsection == "" && c.key == "hookspath":
			if top == "" && !filepath.IsAbs(value) {
				continue // relative to a worktree that we do not know
			}
			s.hooks(top, value)
		case (c.section == "include" || c.section == "includeif") && c.key == "path":
			if device(from(filepath.Dir(file), value)) {
				continue
			}
			s.name(filepath.Dir(file), value)
			if !filepath.IsAbs(value) {
				value = filepath.Join(filepath.Dir(file), value)
			}
			s.configured(value, top)
		}
	}
}

// hooks notes a directory of hooks.
func (s *repositoryScan) hooks(top, value string) {
	p := from(top, value)
	if device(p) {
		return // /dev/null: no hooks
	}
	if below(s.workspace, p) || top != "" && below(top, p) {
		s.wide = append(s.wide, p)
		return
	}
	s.name(top, value)
}

func device(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().Type()&fs.ModeDevice != 0
}

// name notes what a configuration names, and where it leads.
func (s *repositoryScan) name(dir, value string) {
	if len(s.named) >= 4*exeq.MaxRepositories {
		s.refuse("git configurations name too many files")
		return
	}
	p := value
	if !filepath.IsAbs(p) {
		p = filepath.Join(dir, p)
	}
	for _, p := range []string{filepath.Clean(p), from(dir, value)} {
		if !slices.Contains(s.named, p) && p != s.workspace {
			s.named = append(s.named, p)
		}
	}
}

// subdirectories lists the directories in a directory.
func (s *repositoryScan) subdirectories(dir string) (out []string) {
	entries, err := os.ReadDir(dir)
	if err != nil && !missing(err) {
		s.refuse("%s: %w", exeq.EncodeBytes(dir), err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if s.listed++; s.listed > exeq.MaxGitDirectories {
			s.refuse("%s: more than %d directories to search for submodules and linked worktrees: remove those that are not needed", exeq.EncodeBytes(dir), exeq.MaxGitDirectories)
			return out
		}
		out = append(out, filepath.Join(dir, e.Name()))
	}
	return out
}

// gitlinks are the paths at which an index embeds another repository.
func (s *repositoryScan) gitlinks(dir string) (out []string) {
	files := []string{filepath.Join(dir, "index")}
	shared, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "sharedindex.*"))
	for _, name := range append(files, shared...) {
		b := s.content(name, exeq.MaxGitIndexBytes)
		if !bytes.Contains(b, []byte{0, 0, 0xe0, 0}) {
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

// readSome reads a regular file of at most limit bytes.
func readSome(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("has %d bytes, and no more than %d are read", info.Size(), limit)
	}
	return os.ReadFile(name)
}
