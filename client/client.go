// Package client speaks to a server in the terms of package api. Every error says
// what was asked and what came back; nothing is retried here.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api"
	"github.com/exeq/exeq/internal/canon"
)

// Config says where a server is and how it and the caller know one another.
type Config struct {
	URL string // https, without path
	// CAFile holds the certificates (PEM) that the server's is checked against;
	// empty: those of the system.
	CAFile string
	Token  string // what the caller shows
}

// Client asks one server. Safe for concurrent use.
type Client struct {
	base, token string
	http        *http.Client
}

// New checks the configuration and connects to nothing.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("server %q: want https://HOST:PORT", c.URL)
	}
	if c.Token == "" {
		return nil, fmt.Errorf("server %s: no token to show", c.URL)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("server %s: its certificate: %w", c.URL, err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("server %s: %s holds no certificate", c.URL, c.CAFile)
		}
	}
	return &Client{
		base: "https://" + u.Host, token: c.Token,
		// No proxy of the environment: what goes to the server is between the two.
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig: t, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Error is an answer that is no result.
type Error struct {
	Status int
	Path   string
	Words  string // of the server
}

func (e *Error) Error() string {
	return fmt.Sprintf("the server answered %s with %d: %s", e.Path, e.Status, e.Words)
}

// do sends one message and reads the answer strictly into out; in nil: a GET.
func (c *Client) do(ctx context.Context, path string, in, out any, edit ...func(*http.Request)) error {
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range edit {
		f(r)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("the server was not reached: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, exeq.MaxProofBytes+1))
	if err != nil {
		return fmt.Errorf("the server's answer to %s did not arrive whole: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return &Error{resp.StatusCode, path, strings.TrimSpace(string(b[:min(len(b), 1024)]))}
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = bytes.TrimSpace(b)
		return nil
	}
	if err := canon.Decode(bytes.TrimSpace(b), out, canon.Limits{Bytes: exeq.MaxProofBytes, Depth: exeq.MaxDepth}); err != nil {
		return fmt.Errorf("the server's answer to %s: %w", path, err)
	}
	return nil
}

func call[T any](ctx context.Context, c *Client, path string, in any) (*T, error) {
	out := new(T)
	if err := c.do(ctx, path, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Keys are what the server signs with.
func (c *Client) Keys(ctx context.Context) (*api.Keys, error) {
	return call[api.Keys](ctx, c, api.PathKeys, nil)
}

// Policy is the active set; nil beside no error: have is.
func (c *Client) Policy(ctx context.Context, have exeq.Digest) (*api.Policy, error) {
	out := new(api.Policy)
	err := c.do(ctx, api.PathPolicy, nil, out, func(r *http.Request) { r.Header.Set("If-None-Match", `"`+have.String()+`"`) })
	if status(err) == http.StatusNotModified {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Authorize asks for a permit.
func (c *Client) Authorize(ctx context.Context, a *api.Ask) (*api.Answer, error) {
	return call[api.Answer](ctx, c, api.PathAuthorize, a)
}

// Record hands over the next leaves of a chain.
func (c *Client) Record(ctx context.Context, l *api.Leaves) (*api.Promises, error) {
	return call[api.Promises](ctx, c, api.PathRecord, l)
}

// Sign has the issuer sign the end of trust.
func (c *Client) Sign(ctx context.Context, s *api.Sign) (*api.Signed, error) {
	return call[api.Signed](ctx, c, api.PathSign, s)
}

// Renew asks for the next part of a lease.
func (c *Client) Renew(ctx context.Context, r *api.Renew) (*exeq.Renewal, error) {
	return call[exeq.Renewal](ctx, c, api.PathRenew, r)
}

// Revocation waits for one; nil beside no error: none came for a while.
func (c *Client) Revocation(ctx context.Context, execution string) (*exeq.Revocation, error) {
	v, err := call[exeq.Revocation](ctx, c, of(api.PathRevocation, execution), nil)
	if status(err) == http.StatusNoContent {
		return nil, nil
	}
	return v, err
}

// Proof is the proof of an execution, once it is in the log.
func (c *Client) Proof(ctx context.Context, execution string) (b json.RawMessage, err error) {
	return b, c.do(ctx, of(api.PathProof, execution), nil, &b)
}

// Trust is the server's trust file.
func (c *Client) Trust(ctx context.Context) (b json.RawMessage, err error) {
	return b, c.do(ctx, api.PathTrust, nil, &b)
}

func of(path, execution string) string {
	return strings.Replace(path, "{execution}", url.PathEscape(execution), 1)
}

// Answered reports whether an error is the server's own word: of another, what
// became of the question is not known, and the server may not have been reached.
func Answered(err error) bool { return status(err) != 0 }

// status is what the server answered with, 0 where it did not.
func status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}
