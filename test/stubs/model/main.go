// Command model is a loopback stand-in for a model: it speaks the Anthropic
// Messages API (JSON and server-sent events) and, in place of a model, plays a
// script of tool calls. A real coding agent talks to it unchanged.
//
//	model -script script.json [-listen 127.0.0.1:0] [-set NAME=VALUE]… [-log FILE]
//
// The script is a JSON list of turns, each {"text", "tool", "input"}; ${NAME}
// in a string is replaced by -set. Which turn comes next is told by the
// conversation itself (the number of tool results in it), so the stub keeps no
// state. A tool result that is an error ends the conversation with
// "SCRIPT FAILED". The address in use is the one line on standard output; -log
// receives each tool result as a JSON line.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("model: ")
	listen := flag.String("listen", "127.0.0.1:0", "loopback `address` to listen on")
	file := flag.String("script", "", "`file` with the turns to play")
	out := flag.String("log", "", "`file` for the tool results")
	set := map[string]string{}
	flag.Func("set", "`NAME=VALUE` for the script", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("want NAME=VALUE")
		}
		set[name] = value
		return nil
	})
	flag.Parse()
	b, err := os.ReadFile(*file)
	if err != nil {
		log.Fatal(err)
	}
	turns, err := parseScript(b, set)
	if err != nil {
		log.Fatal(err)
	}
	w := io.Discard
	if *out != "" {
		f, err := os.Create(*out)
		if err != nil {
			log.Fatal(err)
		}
		w = f
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	log.Fatal(http.Serve(l, newModel(turns, w)))
}

// turn is one reply of the model: words, then at most one tool call.
type turn struct {
	Text  string         `json:"text,omitempty"`
	Tool  string         `json:"tool,omitempty"`
	Input map[string]any `json:"input,omitempty"`
}

func parseScript(b []byte, set map[string]string) ([]turn, error) {
	var turns []turn
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&turns); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	expand := func(s string) string {
		return os.Expand(s, func(name string) string {
			if v, ok := set[name]; ok {
				return v
			}
			return "${" + name + "}"
		})
	}
	for i := range turns {
		turns[i].Text = expand(turns[i].Text)
		for k, v := range turns[i].Input {
			if s, ok := v.(string); ok {
				turns[i].Input[k] = expand(s)
			}
		}
	}
	return turns, nil
}

// model answers the API from its script.
type model struct {
	turns []turn
	mu    sync.Mutex
	log   *json.Encoder
}

func newModel(turns []turn, w io.Writer) http.Handler {
	m := &model{turns: turns, log: json.NewEncoder(w)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", m.messages)
	mux.HandleFunc("POST /v1/messages/count_tokens", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{"input_tokens": 100})
	})
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {})
	return mux
}

// request is what the stub reads of a Messages API request.
type request struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	Tools []struct {
		Name string `json:"name"`
	} `json:"tools"`
}

// result is a tool result as the agent sends it back.
type result struct {
	Type    string          `json:"type"`
	ID      string          `json:"tool_use_id"`
	Content json.RawMessage `json:"content"`
	IsError bool            `json:"is_error"`
}

func (m *model) messages(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<20)).Decode(&req); err != nil {
		http.Error(w, `{"type":"error","error":{"type":"invalid_request_error","message":"not JSON"}}`, http.StatusBadRequest)
		return
	}
	reply := m.next(&req)
	if req.Stream {
		stream(w, req.Model, reply)
		return
	}
	writeJSON(w, message(req.Model, reply))
}

// next chooses the turn that the conversation has come to. A request without
// tools is one of the agent's side questions (titles, summaries).
func (m *model) next(req *request) turn {
	if len(req.Tools) == 0 {
		return turn{Text: "Scripted run"}
	}
	var results []result
	for _, msg := range req.Messages {
		var blocks []result
		if msg.Role != "user" || json.Unmarshal(msg.Content, &blocks) != nil {
			continue
		}
		for _, b := range blocks {
			if b.Type == "tool_result" {
				results = append(results, b)
			}
		}
	}
	if n := len(results); n > 0 {
		last := results[n-1]
		m.mu.Lock()
		m.log.Encode(last)
		m.mu.Unlock()
		if last.IsError {
			return turn{Text: "SCRIPT FAILED at call " + last.ID + ": " + string(last.Content)}
		}
	}
	if len(results) >= len(m.turns) {
		return turn{Text: "Done."}
	}
	t := m.turns[len(results)]
	if t.Tool != "" && !offers(req, t.Tool) {
		return turn{Text: "SCRIPT FAILED: the agent offers no tool " + t.Tool}
	}
	return t
}

func offers(req *request, tool string) bool {
	for _, t := range req.Tools {
		if t.Name == tool {
			return true
		}
	}
	return false
}
