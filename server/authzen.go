package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/exeq/exeq"
	"github.com/exeq/exeq/api/authzen"
)

var limits = authzen.Limits{Bytes: exeq.MaxMessageBytes, Depth: exeq.MaxDepth, Items: exeq.MaxEvaluations}

// reply writes one JSON value.
func reply(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b.Bytes()) // an error: the caller is gone
	return nil
}

func (s *Server) evaluation(ctx context.Context, body []byte) (any, error) {
	e, err := authzen.DecodeEvaluation(body, limits)
	if err != nil {
		return nil, bad(err)
	}
	return s.decide(ctx, e)
}

func (s *Server) evaluations(ctx context.Context, body []byte) (any, error) {
	e, err := authzen.DecodeEvaluations(body, limits)
	if err != nil {
		return nil, bad(err)
	}
	if len(e.Items) == 0 {
		return s.decide(ctx, &e.Default)
	}
	out := authzen.Decisions{Evaluations: []authzen.Decision{}}
	for _, item := range e.Items {
		d := authzen.Decision{Context: errorContext(item.Err)}
		if item.Err == nil {
			if d, err = s.decide(ctx, &item.Evaluation); err != nil {
				return nil, err
			}
		}
		out.Evaluations = append(out.Evaluations, d)
		if d.Decision && e.Semantic == authzen.PermitOnFirstPermit || !d.Decision && e.Semantic == authzen.DenyOnFirstDeny {
			break
		}
	}
	return out, nil
}

// errorContext is the context of an item that could not be decided.
func errorContext(err error) map[string]any {
	if err == nil {
		return nil
	}
	return map[string]any{"error": map[string]any{"status": http.StatusBadRequest, "message": err.Error()}}
}

// search answers one of the three. Exeq's own types are found nowhere: programs,
// paths and endpoints are no lists.
func (s *Server) search(k authzen.Kind) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, body []byte) (any, error) {
		q, err := authzen.DecodeSearch(body, k, limits)
		if err != nil {
			return nil, bad(err)
		}
		var found []authzen.Evaluation
		if a := s.application(&q.Evaluation); a != nil {
			if found, err = a.Search(ctx, &q.Evaluation, k); err != nil {
				return nil, err
			}
		}
		from, to, page, err := cut(q, len(found))
		if err != nil {
			return nil, bad(err)
		}
		return results(found[from:to], k, page), nil
	}
}

func results(found []authzen.Evaluation, k authzen.Kind, page *authzen.PageInfo) any {
	if k == authzen.Actions {
		out := authzen.Results[authzen.FoundAction]{Page: page, Results: []authzen.FoundAction{}}
		for _, e := range found {
			out.Results = append(out.Results, authzen.FoundAction{Name: e.Action.Name})
		}
		return out
	}
	out := authzen.Results[authzen.Found]{Page: page, Results: []authzen.Found{}}
	for _, e := range found {
		of := e.Subject
		if k == authzen.Resources {
			of = e.Resource
		}
		out.Results = append(out.Results, authzen.Found{Type: of.Type, ID: of.ID})
	}
	return out
}

// cut gives the bounds of the page that is asked for. A token holds where the
// page begins, the limit, and what was asked: it is good for that question alone,
// and for anybody who may ask it.
func cut(q *authzen.Search, n int) (from, to int, page *authzen.PageInfo, err error) {
	asked, err := json.Marshal(q.Evaluation)
	if err != nil {
		return 0, 0, nil, err
	}
	sum := sha256.Sum256(asked)
	limit := q.Page.Limit
	if q.Page.Token != "" {
		var of int
		if from, of, err = openToken(q.Page.Token, sum); err != nil {
			return 0, 0, nil, err
		}
		if limit != 0 && limit != of {
			return 0, 0, nil, fmt.Errorf("page.limit: was %d when the token was given", of)
		}
		limit = of
	}
	if limit == 0 || limit > exeq.MaxSearchResults {
		limit = exeq.MaxSearchResults
	}
	from = min(from, n)
	to = min(from+limit, n)
	if from == 0 && to == n && q.Page == (authzen.Page{}) {
		return from, to, nil, nil
	}
	page = &authzen.PageInfo{Count: to - from, Total: n}
	if to < n {
		page.NextToken = sealToken(to, limit, sum)
	}
	return from, to, page, nil
}

func sealToken(from, limit int, asked [sha256.Size]byte) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(from))
	b = binary.BigEndian.AppendUint32(b, uint32(limit))
	return base64.RawURLEncoding.EncodeToString(append(b, asked[:]...))
}

func openToken(token string, asked [sha256.Size]byte) (from, limit int, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return 0, 0, errors.New("page.token: is not a token of this server")
	}
	if !bytes.Equal(b[8:], asked[:]) {
		return 0, 0, errors.New("page.token: was given for another question; ask it again without a token")
	}
	return int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint32(b[4:])), nil
}
