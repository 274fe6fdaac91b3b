package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/internal/canon"
)

// Names of the files of a set that are not Cedar text.
const (
	EntitiesFile = "entities.json"
	SettingsFile = "settings.json"
	caseSuffix   = ".cases.json"
	testsFile    = "tests.json"
	cedarSuffix  = ".cedar"
)

const tagPolicySet = "exeq.dev/policyset/v1\x00"

// Source is the text of a policy set: what its digest covers and what a proof
// carries so that a stranger can load it and decide again.
type Source struct {
	Version int `json:"v"` // 1
	// Files maps a base name (x.cedar, entities.json, settings.json) to its text.
	Files map[string]string `json:"files"`
}

// ReadDir reads a directory (its *.cedar, entities.json and settings.json) or
// a single .cedar file. Subdirectories and other files are not part of a set;
// where one of them would be taken for a part of it, that is a [*CheckError].
func ReadDir(path string) (*Source, error) {
	src, problems, err := readDir(path)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(problems, Problem.refuses) {
		return nil, &CheckError{problems}
	}
	return src, nil
}

// Links lists those files of the set in a directory that are symbolic links,
// whether or not they lead anywhere; a single file is no directory and has none.
func Links(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if !info.IsDir() {
		return nil, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var out []string
	for _, e := range entries {
		if partOfSet(e.Name()) && e.Type()&fs.ModeSymlink != 0 {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}
	return out, nil
}

// readDir reads a set and lists what is passed over beside it.
func readDir(path string) (*Source, []Problem, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	src := &Source{Version: 1, Files: map[string]string{}}
	if !info.IsDir() {
		if !strings.HasSuffix(path, cedarSuffix) {
			return nil, nil, fmt.Errorf("policy: %s is neither a directory nor a .cedar file", path)
		}
		return src, nil, src.read(path, info)
	}
	var problems []Problem
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	for _, e := range entries {
		if !partOfSet(e.Name()) {
			if p, ok := unread(path, e); ok {
				problems = append(problems, p)
			}
			continue
		}
		p := filepath.Join(path, e.Name())
		info, err := os.Stat(p)
		if err != nil {
			return nil, nil, fmt.Errorf("policy: %w", err)
		}
		if err := src.read(p, info); err != nil {
			return nil, nil, err
		}
	}
	return src, problems, nil
}

func partOfSet(name string) bool {
	return strings.HasSuffix(name, cedarSuffix) || name == EntitiesFile || name == SettingsFile
}

func (s *Source) read(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("policy: %s is not a regular file", path)
	}
	limit := int64(exeq.MaxPolicyBytes)
	if !strings.HasSuffix(path, cedarSuffix) {
		limit = exeq.MaxConfigBytes
	}
	if info.Size() > limit {
		return fmt.Errorf("policy: %s: %d bytes are over the limit of %d", path, info.Size(), limit)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	s.Files[filepath.Base(path)] = string(b)
	return nil
}

// WriteDir writes the files of the source into a directory, which it creates
// if it must (mode 0700); a file that stands there already is an error.
func (s *Source) WriteDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	for _, name := range s.names() {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		_, err = f.WriteString(s.Files[name])
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	return nil
}

func (s *Source) names() []string {
	names := make([]string, 0, len(s.Files))
	for n := range s.Files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Canonical is the one spelling of the source, RFC 8785.
func (s *Source) Canonical() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	return canon.Marshal(s)
}

// Digest is SHA-256("exeq.dev/policyset/v1" NUL ‖ canonical form).
func (s *Source) Digest() (exeq.Digest, error) {
	b, err := s.Canonical()
	if err != nil {
		return exeq.Digest{}, err
	}
	h := sha256.New()
	h.Write([]byte(tagPolicySet))
	h.Write(b)
	return exeq.Digest(h.Sum(nil)), nil
}

// DecodeSource is the inverse of Canonical.
func DecodeSource(b []byte) (*Source, error) {
	var s Source
	if err := canon.Decode(b, &s, canon.Limits{Bytes: exeq.MaxPolicySetBytes, Depth: exeq.MaxDepth}); err != nil {
		return nil, fmt.Errorf("policy source: %w", err)
	}
	return &s, s.validate()
}

// validate bounds the source before anything in it is parsed.
func (s *Source) validate() error {
	if s.Version != 1 {
		return fmt.Errorf("policy source: %w: version %d", exeq.ErrCannotTell, s.Version)
	}
	total := 0
	for _, name := range s.names() {
		if name != filepath.Base(name) || !partOfSet(name) {
			return fmt.Errorf("policy source: %q is not a file of a policy set", name)
		}
		limit := exeq.MaxPolicyBytes
		if !strings.HasSuffix(name, cedarSuffix) {
			limit = exeq.MaxConfigBytes
		}
		if n := len(s.Files[name]); n > limit {
			return fmt.Errorf("policy source: %s: %d bytes are over the limit of %d", name, n, limit)
		}
		total += len(s.Files[name])
	}
	if total > exeq.MaxPolicySetBytes {
		return fmt.Errorf("policy source: %d bytes are over the limit of %d", total, exeq.MaxPolicySetBytes)
	}
	return nil
}
