package monitor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// Remote is a log behind an http or https URL, as a file system without
// directories. Nothing in it is believed: what matters is signed.
func Remote(ctx context.Context, base string, client *http.Client) (fs.FS, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("monitor: %q is not an http or https URL", base)
	}
	if client == nil {
		client = &http.Client{Timeout: 30 * time.Second}
	}
	return &remote{ctx, strings.TrimSuffix(base, "/"), client}, nil
}

type remote struct {
	ctx    context.Context
	base   string
	client *http.Client
}

// Open implements fs.FS.
func (r *remote) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "get", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.base+"/"+name, nil)
	if err != nil {
		return fail(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fail(fs.ErrNotExist)
	case resp.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("status %s", resp.Status))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBundle+1))
	if err != nil {
		return fail(err)
	}
	return &file{path.Base(name), bytes.NewReader(b)}, nil
}

// file is a fetched file.
type file struct {
	name string
	*bytes.Reader
}

func (f *file) Close() error               { return nil }
func (f *file) Stat() (fs.FileInfo, error) { return f, nil }
func (f *file) Name() string               { return f.name }
func (f *file) Size() int64                { return f.Reader.Size() }
func (f *file) Mode() fs.FileMode          { return 0o444 }
func (f *file) ModTime() time.Time         { return time.Time{} }
func (f *file) IsDir() bool                { return false }
func (f *file) Sys() any                   { return nil }
