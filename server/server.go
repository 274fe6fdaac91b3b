// Package server is the control plane: the decision point of an installation as a
// service, for enforcement points on this machine and on others.
//
// So far it answers the OpenID AuthZEN Authorization API 1.0 (package
// api/authzen) about Exeq's own types and about those of applications. An answer
// without a permit is advice to the enforcement point that asked: nothing runs by
// it, and it is not on record. One with a permit is on record before it leaves.
// Whoever asks shows the installation's token.
package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
)

// Config says what a server decides by and whom it answers.
type Config struct {
	// Installation decides about Exeq's own types, issues and records.
	Installation *standalone.Installation
	// Applications decide about their own types; no two have a type of one name,
	// and none has one of Exeq's.
	Applications []*policy.Application
	// Base is the server's URL, https without path, as the metadata tells it.
	Base string
	// Token is what callers show (RFC 6750); never empty.
	Token string
	Log   *slog.Logger // nil discards
}

// Server answers over HTTP. It is safe for concurrent use.
type Server struct {
	config     Config
	policies   exeq.PolicySource
	executions *executions
	token      [sha256.Size]byte
	mux        *http.ServeMux
}

// New makes a server; the error says what of the configuration cannot be.
func New(c Config) (*Server, error) {
	if c.Token == "" || c.Installation == nil || !strings.HasPrefix(c.Base, "https://") {
		return nil, errors.New("server: an installation, a token and an https URL are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := distinct(c.Applications); err != nil {
		return nil, err
	}
	s := &Server{config: c, policies: c.Installation.Policies(), token: sha256.Sum256([]byte(c.Token)), mux: http.NewServeMux()}
	s.executions = &executions{in: c.Installation, issuer: c.Installation.Issuer(), log: c.Log, ending: make(chan struct{}), live: map[string]*remote{}}
	s.post(authzen.PathEvaluation, exeq.MaxMessageBytes, s.evaluation)
	s.post(authzen.PathEvaluations, exeq.MaxMessageBytes, s.evaluations)
	s.post(authzen.PathSearchSubject, exeq.MaxMessageBytes, s.search(authzen.Subjects))
	s.post(authzen.PathSearchResource, exeq.MaxMessageBytes, s.search(authzen.Resources))
	s.post(authzen.PathSearchAction, exeq.MaxMessageBytes, s.search(authzen.Actions))
	s.mux.HandleFunc("GET "+authzen.PathConfiguration, s.configuration)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.api()
	return s, nil
}

// distinct refuses applications of which two could answer one question.
func distinct(apps []*policy.Application) error {
	seen := map[string]bool{"User": true, "Agent": true}
	for _, a := range apps {
		for _, t := range a.Types() {
			if seen[t] {
				return fmt.Errorf("server: two decide about the type %q: rename it in one application's %s (User and Agent are Exeq's own)", t, policy.SchemaFile)
			}
			seen[t] = true
		}
	}
	return nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if id := r.Header.Get(authzen.HeaderRequestID); id != "" && len(id) <= exeq.MaxRequestIDBytes {
		w.Header().Set(authzen.HeaderRequestID, id)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s.mux.ServeHTTP(w, r)
}

// failure is an answer that is no decision; its words go to the caller.
type failure struct {
	status int
	words  string
}

func (f failure) Error() string { return f.words }

func bad(err error) error { return failure{http.StatusBadRequest, err.Error()} }

// post registers what answers a body of at most limit bytes with a JSON value.
func (s *Server) post(path string, limit int64, answer func(ctx context.Context, body []byte) (any, error)) {
	s.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := s.accept(w, r, limit)
		var v any
		if err == nil {
			v, err = answer(r.Context(), body)
		}
		if err == nil {
			err = reply(w, v)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	})
}

// get registers what answers with a JSON value.
func (s *Server) get(path string, answer func(*http.Request) (any, error)) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		err := s.admit(w, r)
		var v any
		if err == nil {
			v, err = answer(r)
		}
		if err == nil {
			err = reply(w, v)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	})
}

// admit lets callers pass who may ask.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) error {
	if s.known(r) {
		return nil
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	return failure{http.StatusUnauthorized, "show the server's token: Authorization: Bearer TOKEN"}
}

// accept reads the body of a caller who may ask.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if err := s.admit(w, r); err != nil {
		return nil, err
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, failure{http.StatusBadRequest, "Content-Type: want application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("body: more than the limit of %d bytes", limit)}
	}
	if err != nil {
		return nil, failure{http.StatusBadRequest, "body: it did not arrive whole"}
	}
	return body, nil
}

// known compares digests, so that neither time nor length tells of the token.
func (s *Server) known(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	shown := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(shown[:], s.token[:]) == 1
}

// refuse answers with a status and a message; what is the server's own fault is
// logged and not told.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var f failure
	if !errors.As(err, &f) {
		s.config.Log.Error("a request could not be answered", "path", r.URL.Path, "err", err)
		f = failure{http.StatusInternalServerError, "the server could not answer; its log says why"}
	}
	if f.words == "" {
		w.WriteHeader(f.status)
		return
	}
	http.Error(w, f.words, f.status)
}

// ready answers whether the server could decide now.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if _, err := s.policies.Active(r.Context()); err != nil {
		s.config.Log.Error("no policy set is active", "err", err)
		http.Error(w, "no policy set is active", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

func (s *Server) configuration(w http.ResponseWriter, r *http.Request) {
	if err := reply(w, authzen.ConfigurationAt(s.config.Base)); err != nil {
		s.refuse(w, r, err)
	}
}

// Serve answers on a listener that speaks TLS until ctx ends; then what is being
// answered is, and nothing else. It is called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	h.RegisterOnShutdown(func() { close(s.executions.ending) })
	ended := make(chan error, 1)
	go s.executions.watch(ctx)
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		ended <- h.Shutdown(end)
	}()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}
