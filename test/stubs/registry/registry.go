package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha1" // npm's dist.shasum
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// registry answers GET /NAME (the packument) and GET /NAME/-/FILE.tgz; a scoped
// name may be spelled @scope%2Fname.
type registry struct {
	packages map[string]*packument
	tarballs map[string]string // "/NAME/-/FILE.tgz" → file on disk
}

// packument is npm's document of all versions of a package.
type packument struct {
	Name     string                    `json:"name"`
	DistTags map[string]string         `json:"dist-tags"`
	Versions map[string]map[string]any `json:"versions"`
}

// load reads every tarball of dir.
func load(dir string) (*registry, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no *.tgz in %s", dir)
	}
	r := &registry{packages: map[string]*packument{}, tarballs: map[string]string{}}
	for _, f := range files {
		if err := r.add(f); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(f), err)
		}
	}
	return r, nil
}

func (r *registry) add(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	s1, s512 := sha1.New(), sha512.New()
	manifest, err := readManifest(io.TeeReader(f, io.MultiWriter(s1, s512)))
	if err != nil {
		return err
	}
	name, _ := manifest["name"].(string)
	version, _ := manifest["version"].(string)
	if name == "" || version == "" {
		return errors.New("package.json has no name or version")
	}
	at := "/" + name + "/-/" + path.Base(name) + "-" + version + ".tgz"
	r.tarballs[at] = file
	manifest["dist"] = map[string]any{
		"shasum":    hex.EncodeToString(s1.Sum(nil)),
		"integrity": "sha512-" + base64.StdEncoding.EncodeToString(s512.Sum(nil)),
		"tarball":   at, // made absolute for whoever asks
	}
	p := r.packages[name]
	if p == nil {
		p = &packument{Name: name, DistTags: map[string]string{}, Versions: map[string]map[string]any{}}
		r.packages[name] = p
	}
	p.Versions[version] = manifest
	p.DistTags["latest"] = version
	return nil
}

// readManifest finds package/package.json and reads the tarball to its end, so
// that the digests cover all of it.
func readManifest(in io.Reader) (map[string]any, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	var manifest map[string]any
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if _, rest, ok := strings.Cut(path.Clean(h.Name), "/"); ok && rest == "package.json" {
			if err := json.NewDecoder(io.LimitReader(t, 1<<20)).Decode(&manifest); err != nil {
				return nil, fmt.Errorf("package.json: %w", err)
			}
		}
	}
	if manifest == nil {
		return nil, errors.New("no package.json")
	}
	_, err = io.Copy(io.Discard, in)
	return manifest, err
}

// ServeHTTP implements http.Handler.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	name, err := url.PathUnescape(q.URL.EscapedPath())
	if err != nil || q.Method != http.MethodGet {
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	if file, ok := r.tarballs[name]; ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeFile(w, q, file)
		return
	}
	p, ok := r.packages[strings.TrimPrefix(name, "/")]
	if !ok {
		http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
		return
	}
	out := packument{Name: p.Name, DistTags: p.DistTags, Versions: map[string]map[string]any{}}
	for v, m := range p.Versions {
		m = clone(m)
		dist := clone(m["dist"].(map[string]any))
		dist["tarball"] = "http://" + q.Host + dist["tarball"].(string)
		m["dist"] = dist
		out.Versions[v] = m
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(out)
}

func clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}
