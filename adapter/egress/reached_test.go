package egress

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/exeq/exeq"
)

// TestReached: told is what was connected to, and neither what was only asked
// for nor what nobody listens on.
func TestReached(t *testing.T) {
	s, gone := echo(t), echo(t)
	host, port := hostPort(t, s.URL)
	_, closed := hostPort(t, gone.URL)
	gone.Close()
	var mu sync.Mutex
	reached := map[string]bool{}
	f := start(t, append(anyPort("*"), exeq.Endpoint{Host: host, Port: port}, exeq.Endpoint{Host: host, Port: closed}), func(c *Config) {
		c.Reached = func(endpoint string) { mu.Lock(); defer mu.Unlock(); reached[endpoint] = true }
	})
	for url, want := range map[string]int{
		s.URL: 200, gone.URL: http.StatusBadGateway, "http://nowhere.invalid/": http.StatusBadGateway,
	} {
		resp, err := f.client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", url, resp.Status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := fmt.Sprintf("%s:%d", host, port); len(reached) != 1 || !reached[want] {
		t.Errorf("reached %v, want %s alone", reached, want)
	}
}
