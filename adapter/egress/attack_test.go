package egress

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// Every destination that must not be reached though policy allows any host and
// any port: none may be dialled.
func TestForbiddenAddresses(t *testing.T) {
	own, err := interfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	literals := []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
		"[0:0:0:0:0:ffff:7f00:1]", "localhost", "LOCALHOST", "localhost.", "sub.localhost",
		"169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "[fd20:ce::254]", "100.100.100.200",
		"168.63.129.16", "192.0.0.192", "169.254.1.1", "[fe80::1]", "10.0.0.1", "172.16.0.1", "192.168.1.1",
		"100.64.0.1", "[fc00::1]", "[fec0::1]", "224.0.0.1", "[ff02::1]", "255.255.255.255", "240.0.0.1",
		"[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
		"[2001:db8::5efe:127.0.0.1]", "[2606:4700::5efe:7f00:1]", "198.18.0.1",
	}
	for _, a := range own {
		if a.Zone() == "" {
			literals = append(literals, strings.TrimSuffix(target{a.String(), 1}.String(), ":1"))
		}
	}
	f := start(t, anyPort("*"))
	for _, h := range literals {
		for _, text := range []string{
			"CONNECT " + h + ":80 HTTP/1.1\r\nHost: " + h + ":80\r\n\r\n",
			"GET http://" + h + "/latest/meta-data HTTP/1.1\r\nHost: " + h + "\r\n\r\n",
		} {
			status, line := f.raw(text)
			if status != 403 || !strings.Contains(line, "Exeq::Endpoint::") {
				t.Errorf("%s: %d %q, want 403 and what would allow it", text[:strings.Index(text, "\r")], status, line)
			}
		}
	}
	if f.dials() != 0 {
		t.Errorf("dialled %v", f.dialed)
	}
	if len(f.g.refused) != 2*len(literals) {
		t.Errorf("%d refusals reached the gate, want %d", len(f.g.refused), 2*len(literals))
	}
}

// Names that resolve to such addresses, alone or among public ones, even if
// policy names the very name (rebinding): none may be dialled.
func TestForbiddenResolutions(t *testing.T) {
	f := start(t, []exeq.Endpoint{{Host: "*"}, {Host: "rebind.example", Port: 80}})
	for _, addrs := range [][]string{
		{"127.0.0.1"}, {"::1"}, {"::ffff:127.0.0.1"}, {"169.254.169.254"}, {"fd00:ec2::254"}, {"fe80::1"},
		{"0.0.0.0"}, {"64:ff9b::7f00:1"}, {public, "127.0.0.1"}, {public, "169.254.169.254"},
	} {
		f.names.hosts["rebind.example"] = addrs
		if status, line := f.raw("CONNECT rebind.example:80 HTTP/1.1\r\nHost: rebind.example\r\n\r\n"); status != 403 {
			t.Errorf("%v: %d %q, want 403", addrs, status, line)
		}
	}
	f.names.hosts["any.example"] = []string{"10.1.2.3"}
	if status, _ := f.raw("CONNECT any.example:80 HTTP/1.1\r\nHost: any.example\r\n\r\n"); status != 403 {
		t.Errorf("a private address by a wildcard: %d, want 403", status)
	}
	if f.dials() != 0 {
		t.Errorf("dialled %v", f.dialed)
	}
}

// What policy names exactly opens, and only that.
func TestExactNamesOpen(t *testing.T) {
	s := echo(t)
	addr := s.Listener.Addr().String()
	_, port := hostPort(t, s.URL)
	get := func(f *fixture, host string) int {
		h := fmt.Sprintf("%s:%d", host, port)
		status, _ := f.raw("GET http://" + h + "/ HTTP/1.1\r\nHost: " + h + "\r\nConnection: close\r\n\r\n")
		return status
	}
	t.Run("address", func(t *testing.T) {
		f := start(t, []exeq.Endpoint{{Host: "*"}, {Host: "127.0.0.1", Port: port}})
		for host, want := range map[string]int{"127.0.0.1": 200, "[::ffff:127.0.0.1]": 200, "127.0.0.2": 403, "localhost": 403} {
			if got := get(f, host); got != want {
				t.Errorf("%s: %d, want %d", host, got, want)
			}
		}
	})
	t.Run("any port is not exact", func(t *testing.T) {
		if got := get(start(t, []exeq.Endpoint{{Host: "127.0.0.1"}}), "127.0.0.1"); got != 403 {
			t.Errorf("got %d, want 403", got)
		}
	})
	t.Run("localhost", func(t *testing.T) {
		f := start(t, []exeq.Endpoint{{Host: "localhost", Port: port}})
		if got := get(f, "localhost"); got != 200 {
			t.Errorf("got %d, want 200", got)
		}
		if len(f.names.asked) != 0 {
			t.Errorf("a name server was asked for localhost: %v", f.names.asked)
		}
	})
	t.Run("private by name", func(t *testing.T) {
		f := start(t, []exeq.Endpoint{{Host: "git.corp.example", Port: port}})
		f.names.hosts["git.corp.example"] = []string{"10.1.2.3"}
		f.routes[fmt.Sprintf("10.1.2.3:%d", port)] = addr
		if got := get(f, "git.corp.example"); got != 200 {
			t.Errorf("got %d, want 200", got)
		}
	})
	t.Run("observed", func(t *testing.T) {
		f := start(t, anyPort("*"), func(c *Config) { c.Observe = true })
		f.names.hosts["rebind.example"] = []string{"127.0.0.1"}
		for host, want := range map[string]int{"127.0.0.1": 200, "localhost": 200, "169.254.169.254": 403, "rebind.example": 403} {
			if got := get(f, host); got != want {
				t.Errorf("%s: %d, want %d", host, got, want)
			}
		}
	})
}

// The address that was judged is the one that is dialled, whatever the name
// server says the second time.
func TestDialsWhatWasJudged(t *testing.T) {
	s := echo(t)
	f := start(t, anyPort("flip.example"))
	f.route("flip.example", 80, s.Listener.Addr().String())
	if status, _ := f.raw("GET http://flip.example/ HTTP/1.1\r\nHost: flip.example\r\nConnection: close\r\n\r\n"); status != 200 {
		t.Fatalf("got %d", status)
	}
	if len(f.names.asked) != 1 || len(f.dialed) != 1 || f.dialed[0] != public+":80" {
		t.Errorf("asked %v, dialled %v: want one question and that answer dialled", f.names.asked, f.dialed)
	}
}

// A name that policy denies reaches no resolver: nothing leaks by DNS.
func TestDeniedNamesAreNotResolved(t *testing.T) {
	f := start(t, anyPort(".example.com"))
	f.g.set(func(id string) bool { return id == "ok.example.com:443" })
	for _, h := range []string{"c2VjcmV0.evil.example", "secret.example.com", "example.com.evil.example", "badexample.com"} {
		status, line := f.raw("CONNECT " + h + ":443 HTTP/1.1\r\nHost: " + h + ":443\r\n\r\n")
		if status != 403 || !strings.Contains(line, "test-forbid") {
			t.Errorf("%s: %d %q, want 403 naming the policy", h, status, line)
		}
	}
	f.g.set(everything) // the rights alone deny
	if status, line := f.raw("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"); status != 403 || !strings.Contains(line, "outside the rights") {
		t.Errorf("outside the rights: %d %q", status, line)
	}
	if len(f.names.asked) != 0 {
		t.Errorf("resolved %v", f.names.asked)
	}
}

// Each denial has its line said once, whatever the client shows of it.
func TestSaysEachDenialOnce(t *testing.T) {
	var said []string
	f := start(t, anyPort("*"), func(c *Config) { c.Say = func(line string) { said = append(said, line) } })
	f.g.set(func(id string) bool { return id != "evil.example:443" })
	for range 3 {
		f.raw("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
		f.raw("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
		f.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n") // a mistake, no denial
	}
	if len(said) != 2 || !strings.HasPrefix(said[0], "exeq: connect to evil.example:443 denied by policy test-forbid") || !strings.Contains(said[1], "loopback") {
		t.Errorf("said %q, want each of two denials once", said)
	}
}

// Requests on which two parsers could disagree are refused, and none of them
// makes the proxy dial or ask.
func TestRefusedSpellings(t *testing.T) {
	f := start(t, anyPort("*"))
	const h = "Host: example.com\r\n"
	long := strings.Repeat("a", exeq.MaxProxyHeadBytes)
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"host differs":                {"GET http://example.com/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400},
		"host port differs":           {"GET http://example.com/ HTTP/1.1\r\nHost: example.com:81\r\n\r\n", 400},
		"connect host differs":        {"CONNECT example.com:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 400},
		"connect host port differs":   {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:80\r\n\r\n", 400},
		"two hosts":                   {"GET http://example.com/ HTTP/1.1\r\n" + h + "Host: evil.example\r\n\r\n", 400},
		"two equal hosts":             {"GET http://example.com/ HTTP/1.1\r\n" + h + h + "\r\n", 400},
		"no host":                     {"GET http://example.com/ HTTP/1.1\r\n\r\n", 400},
		"empty host":                  {"GET http://example.com/ HTTP/1.1\r\nHost:\r\n\r\n", 400},
		"origin form":                 {"GET / HTTP/1.1\r\n" + h + "\r\n", 400},
		"https absolute":              {"GET https://example.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"other scheme":                {"GET ftp://example.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"userinfo":                    {"GET http://example.com@evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400},
		"backslash":                   {"GET http://example.com\\@evil.example/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"fragment":                    {"GET http://example.com#@evil.example/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"encoded host":                {"GET http://%65xample.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect with path":           {"CONNECT example.com:443/x HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect without port":        {"CONNECT example.com HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect port 0":              {"CONNECT example.com:0 HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect port 65536":          {"CONNECT example.com:65536 HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect port +443":           {"CONNECT example.com:+443 HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect two ports":           {"CONNECT example.com:443:80 HTTP/1.1\r\n" + h + "\r\n", 400},
		"connect with body":           {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nContent-Length: 1\r\n\r\nx", 400},
		"connect absolute":            {"CONNECT http://example.com:443 HTTP/1.1\r\n" + h + "\r\n", 400},
		"decimal address":             {"CONNECT 2130706433:80 HTTP/1.1\r\nHost: 2130706433:80\r\n\r\n", 400},
		"hex address":                 {"CONNECT 0x7f000001:80 HTTP/1.1\r\nHost: 0x7f000001:80\r\n\r\n", 400},
		"octal address":               {"CONNECT 0177.0.0.1:80 HTTP/1.1\r\nHost: 0177.0.0.1:80\r\n\r\n", 400},
		"short address":               {"CONNECT 127.1:80 HTTP/1.1\r\nHost: 127.1:80\r\n\r\n", 400},
		"zone":                        {"CONNECT [fe80::1%25eth0]:80 HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n", 400},
		"full-width address":          {"CONNECT \uff11\uff12\uff17.0.0.1:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400},
		"international name":          {"GET http://b\u00fccher.example/ HTTP/1.1\r\nHost: b\u00fccher.example\r\n\r\n", 400},
		"length and coding":           {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"two lengths":                 {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400},
		"listed lengths":              {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length: 4, 4\r\n\r\nabcd", 400},
		"signed length":               {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length: +4\r\n\r\nabcd", 400},
		"empty length":                {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length:\r\n\r\n", 400},
		"huge length":                 {"POST http://example.com/ HTTP/1.1\r\n" + h + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"two codings":                 {"POST http://example.com/ HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
		"repeated coding":             {"POST http://example.com/ HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400},
		"obscure coding":              {"POST http://example.com/ HTTP/1.1\r\n" + h + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		"coding in 1.0":               {"POST http://example.com/ HTTP/1.0\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"space before colon":          {"POST http://example.com/ HTTP/1.1\r\n" + h + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"underscore":                  {"POST http://example.com/ HTTP/1.1\r\n" + h + "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"folded":                      {"GET http://example.com/ HTTP/1.1\r\n" + h + "X: a\r\n b\r\n\r\n", 400},
		"bare line feed":              {"GET http://example.com/ HTTP/1.1\r\n" + h + "X: a\nHost: evil.example\r\n\r\n", 400},
		"all line feeds":              {"GET http://example.com/ HTTP/1.1\nHost: example.com\n\n", 400},
		"bare return":                 {"GET http://example.com/ HTTP/1.1\r\n" + h + "X: a\rHost: evil.example\r\n\r\n", 400},
		"nul":                         {"GET http://example.com/ HTTP/1.1\r\n" + h + "X: a\x00b\r\n\r\n", 400},
		"leading blank line":          {"\r\nGET http://example.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"two spaces":                  {"GET  http://example.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"tab in the request line":     {"GET\thttp://example.com/ HTTP/1.1\r\n" + h + "\r\n", 400},
		"HTTP/0.9":                    {"GET http://example.com/\r\n\r\n", 400},
		"HTTP/2.0":                    {"GET http://example.com/ HTTP/2.0\r\n" + h + "\r\n", 400},
		"HTTP/2 preface":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"h2c upgrade":                 {"GET http://example.com/ HTTP/1.1\r\n" + h + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 400},
		"h2c among others":            {"GET http://example.com/ HTTP/1.1\r\n" + h + "Upgrade: websocket, H2C\r\n\r\n", 400},
		"settings alone":              {"GET http://example.com/ HTTP/1.1\r\n" + h + "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 400},
		"too large":                   {"GET http://example.com/" + long + " HTTP/1.1\r\n" + h + "\r\n", 431},
		"too many fields":             {"GET http://example.com/ HTTP/1.1\r\n" + h + strings.Repeat("X: y\r\n", exeq.MaxProxyHeaders) + "\r\n", 400},
		"connect to the proxy itself": {"CONNECT " + f.addr + " HTTP/1.1\r\nHost: " + f.addr + "\r\n\r\n", 403},
	} {
		if status, line := f.raw(c.text); status != c.status {
			t.Errorf("%s: %d %q, want %d", name, status, line, c.status)
		}
	}
	if f.dials() != 0 || len(f.names.asked) != 0 {
		t.Errorf("dialled %v, resolved %v: want neither", f.dialed, f.names.asked)
	}
}

// What follows a refused request on its connection is never served.
func TestNothingFollowsARefusal(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	good := fmt.Sprintf("GET http://%s:%d/second HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, port, host, port)
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST http://x.example/ HTTP/1.1\r\nHost: x.example\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"+good)
	b, _ := io.ReadAll(c)
	if n := bytes.Count(b, []byte("HTTP/1.1 ")); n != 1 || !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) {
		t.Errorf("got %q, want one refusal and the end", b)
	}
	if f.dials() != 0 {
		t.Error("the smuggled request went upstream")
	}
}

// Pipelined requests are each decided on.
func TestPipelinedRequestsAreEachDecided(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	good := fmt.Sprintf("POST http://%s:%d/ HTTP/1.1\r\nHost: %s:%d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", host, port, host, port)
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, good+good+"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"+good)
	r := bufio.NewReader(c)
	for i, want := range []int{200, 200, 403} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want)
		}
	}
	if b, _ := io.ReadAll(r); len(b) != 0 {
		t.Errorf("after the denial: %q", b)
	}
}

// With a secret, nobody else on the machine is served.
func TestSecret(t *testing.T) {
	s := echo(t)
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}}, func(c *Config) { c.Secret = "s3cret:x" })
	field := func(user string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user)) + "\r\n"
	}
	for _, c := range []struct {
		fields string
		want   int
	}{
		{field("exeq:s3cret:x"), 200},
		{strings.Replace(field("any:s3cret:x"), "Basic", "bASIC", 1), 200},
		{"", 407},
		{field("exeq:"), 407},
		{field("exeq:s3cret"), 407},
		{field("s3cret:x"), 407},
		{"Proxy-Authorization: Bearer s3cret:x\r\n", 407},
		{"Proxy-Authorization: Basic !\r\n", 407},
		{field("exeq:no") + field("exeq:s3cret:x"), 400},
	} {
		text := fmt.Sprintf("GET %s/ HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n%s\r\n", s.URL, host, port, c.fields)
		if status, line := f.raw(text); status != c.want || strings.Contains(line, "s3cret") {
			t.Errorf("%q: %d %q, want %d", c.fields, status, line, c.want)
		}
	}
	if f.g.count() != 2 {
		t.Errorf("asked %d times, want 2", f.g.count())
	}
}

// A redirect is the client's business: the proxy follows none, and the next
// request is decided on by itself.
func TestRedirectIsDecidedAgain(t *testing.T) {
	secret := echo(t)
	s := httptest.NewServer(http.RedirectHandler(secret.URL+"/latest/meta-data", http.StatusFound))
	defer s.Close()
	host, port := hostPort(t, s.URL)
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	resp, err := f.client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("the redirect's target answered %s, want 403", resp.Status)
	}
}
