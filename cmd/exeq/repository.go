//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/standalone"
)

// unseenRepository says what git could not: that it failed because the
// directory of the workspace's repository lies outside of the workspace, where
// the rights let nobody read. It is empty where that is not so.
func unseenRepository(workspace string, r *exeq.Rights) string {
	for top := workspace; ; top = filepath.Dir(top) {
		entry := filepath.Join(top, ".git")
		info, err := os.Stat(entry)
		switch {
		case err != nil && top == "/":
			return ""
		case err != nil:
			continue
		case !info.IsDir():
			if entry = commonDir(top, entry); entry == "" {
				return ""
			}
		}
		git, err := filepath.EvalSymlinks(entry)
		if err != nil || r.Lookup(exeq.EncodeBytes(git)).Read {
			return ""
		}
		do := "run in " + exeq.Readable(exeq.EncodeBytes(top))
		if top == workspace {
			do = fmt.Sprintf("to let git read it (and not commit) add: permit (principal, action == Exeq::Action::\"read\", resource in Exeq::Path::%q);", exeq.EncodeBytes(git))
		}
		return fmt.Sprintf("the directory of this repository, %s, lies outside of the workspace, where git could not read it: %s",
			exeq.Readable(exeq.EncodeBytes(git)), do)
	}
}

// commonDir is where a .git file leads: to the repository that a linked worktree
// belongs to, or to the directory of a submodule.
func commonDir(top, file string) string {
	b, err := os.ReadFile(file)
	dir, ok := strings.CutPrefix(strings.TrimRight(string(b), "\n"), "gitdir: ")
	if err != nil || !ok {
		return ""
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(top, dir)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "commondir")); err == nil {
		common := strings.TrimRight(string(b), "\n")
		if filepath.IsAbs(common) {
			return common
		}
		return filepath.Join(dir, common)
	}
	return dir
}

// ranGit reports whether git was started in an execution.
func ranGit(ctx context.Context, in *standalone.Installation, o *runOptions, id string) bool {
	if filepath.Base(o.argv[0]) == "git" {
		return true
	}
	leaves, err := in.Store.Leaves(ctx, id)
	if err != nil {
		return false
	}
	entries, err := standalone.ActivitiesOf(leaves)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Activity.Action == exeq.ActionExec && filepath.Base(e.Activity.Resource.ID) == "git" {
			return true
		}
	}
	return false
}

// within reports whether a resolved directory is the one that a path leads to, or
// lies below it.
func within(dir, path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && (dir == real || strings.HasPrefix(dir, strings.TrimSuffix(real, "/")+"/"))
}
