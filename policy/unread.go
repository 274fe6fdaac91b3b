package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxUnread bounds the search of subdirectories for policies.
const maxUnread = 4096

var errTooMany = errors.New("too many files")

// CheckDir lists every problem of the set at path (a directory or a .cedar
// file): those of [Check] and, in a directory, the files that look like a part
// of the set and are not read. The error is about input that cannot be read.
func CheckDir(path string) ([]Problem, error) {
	src, problems, err := readDir(path)
	if err != nil {
		return nil, err
	}
	problems = append(problems, Check(src)...)
	sortProblems(problems)
	return problems, nil
}

// unread tells whether an entry beside a set looks like a part of it. A forbid
// in a file that is passed over makes the set in force weaker than its author
// thinks, so what can hardly be anything else refuses the set; what may be an
// editor's copy is a warning.
func unread(dir string, e fs.DirEntry) (Problem, bool) {
	name := e.Name()
	path := filepath.Join(dir, name)
	lower := strings.ToLower(strings.TrimSpace(name))
	isDir := e.IsDir()
	if e.Type()&fs.ModeSymlink != 0 {
		info, err := os.Stat(path)
		isDir = err == nil && info.IsDir()
	}
	switch {
	case isDir && strings.HasPrefix(name, "."): // .git, an editor's history, the ..data of a mounted ConfigMap
	case isDir:
		return unreadBelow(path, name)
	case partOfSet(lower):
		return Problem{File: name, Message: "the file is not read: its name is not spelled exactly so", Fix: fmt.Sprintf("rename it to %q or move it away", lower)}, true
	case strings.HasSuffix(lower, ".json"):
		if name == testsFile || strings.HasSuffix(name, caseSuffix) || strings.HasSuffix(lower, ".cedarschema.json") {
			break
		}
		return Problem{File: name, Warning: true, Message: "the file is not read",
			Fix: fmt.Sprintf("rename it or move it away: a set has %s, %s, %s and *%s", EntitiesFile, SettingsFile, testsFile, caseSuffix)}, true
	case strings.Contains(lower, cedarSuffix) && !strings.HasSuffix(lower, ".cedarschema"):
		return Problem{File: name, Warning: true, Message: "the file is not read: its name does not end in " + cedarSuffix, Fix: "rename it or move it away"}, true
	}
	return Problem{}, false
}

// unreadBelow looks for policies in a subdirectory; not to be able to tell is
// a problem too.
func unreadBelow(path, name string) (p Problem, found bool) {
	seen := 0
	err := filepath.WalkDir(path+string(filepath.Separator), func(at string, e fs.DirEntry, err error) error {
		if seen++; err != nil {
			return err
		} else if seen > maxUnread {
			return errTooMany
		}
		if e.IsDir() {
			if strings.HasPrefix(e.Name(), ".") && seen > 1 {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(strings.ToLower(e.Name()), cedarSuffix) {
			rel, err := filepath.Rel(path, at)
			if err != nil {
				return err
			}
			p, found = Problem{File: filepath.Join(name, rel), Message: "the file is not read: subdirectories are no part of a set",
				Fix: "move it up beside the other policies, or away"}, true
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return Problem{File: name, Message: fmt.Sprintf("cannot tell whether a policy lies in there unread: %v", err),
			Fix: "give the policies a directory of their own, or name the " + cedarSuffix + " file"}, true
	}
	return p, found
}
