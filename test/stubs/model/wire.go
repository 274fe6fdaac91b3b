package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
)

// block is one piece of a reply's content.
type block map[string]any

// message is a whole reply as the API gives it without streaming.
func message(model string, t turn) map[string]any {
	content := []block{}
	if t.Text != "" {
		content = append(content, block{"type": "text", "text": t.Text})
	}
	stop := "end_turn"
	if t.Tool != "" {
		stop = "tool_use"
		input := t.Input
		if input == nil {
			input = map[string]any{}
		}
		content = append(content, block{"type": "tool_use", "id": "toolu_" + rand.Text(), "name": t.Tool, "input": input})
	}
	return map[string]any{
		"id": "msg_" + rand.Text(), "type": "message", "role": "assistant", "model": model,
		"content": content, "stop_reason": stop, "stop_sequence": nil,
		"usage": map[string]any{"input_tokens": 100, "output_tokens": 20},
	}
}

// stream gives the same reply as server-sent events, in the order that the API
// documents: message_start, each block's start, deltas and stop, message_delta
// with the stop reason, message_stop.
func stream(w http.ResponseWriter, model string, t turn) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	send := func(event string, data map[string]any) {
		data["type"] = event
		b, err := json.Marshal(data)
		if err != nil {
			panic(err) // maps of strings, numbers and a script's JSON
		}
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b)
		w.(http.Flusher).Flush()
	}
	msg := message(model, t)
	content, stop := msg["content"].([]block), msg["stop_reason"]
	msg["content"], msg["stop_reason"] = []block{}, nil
	send("message_start", map[string]any{"message": msg})
	for i, b := range content {
		delta := map[string]any{"type": "text_delta", "text": b["text"]}
		open := block{"type": "text", "text": ""}
		if b["type"] == "tool_use" {
			input, err := json.Marshal(b["input"])
			if err != nil {
				panic(err)
			}
			delta = map[string]any{"type": "input_json_delta", "partial_json": string(input)}
			open = block{"type": "tool_use", "id": b["id"], "name": b["name"], "input": map[string]any{}}
		}
		send("content_block_start", map[string]any{"index": i, "content_block": open})
		send("content_block_delta", map[string]any{"index": i, "delta": delta})
		send("content_block_stop", map[string]any{"index": i})
	}
	send("message_delta", map[string]any{"delta": map[string]any{"stop_reason": stop, "stop_sequence": nil}, "usage": map[string]any{"output_tokens": 20}})
	send("message_stop", map[string]any{})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
