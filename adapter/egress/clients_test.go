package egress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exeq/exeq"
)

// Real clients, set up as an execution is: by their proxy variables alone.
func TestRealClients(t *testing.T) {
	plain := echo(t)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "secure %s", r.Host)
	}))
	defer secure.Close()
	_, port := hostPort(t, secure.URL)
	f := start(t, anyPort("plain.example", "secure.example"))
	f.route("plain.example", 80, plain.Listener.Addr().String())
	f.route("secure.example", port, secure.Listener.Addr().String())
	url := fmt.Sprintf("https://secure.example:%d/", port)
	python := `import sys, ssl, urllib.request as u
c = ssl._create_unverified_context()
print(u.urlopen(sys.argv[1], context=c).read().decode())`

	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"curl":              {[]string{"curl", "-sS", "http://plain.example/x"}, "GET plain.example/x"},
		"curl tunnel":       {[]string{"curl", "-sS", "-p", "http://plain.example/x"}, "GET plain.example/x"},
		"curl post":         {[]string{"curl", "-sS", "-H", "Expect: 100-continue", "-d", "some data", "http://plain.example/x"}, "POST plain.example/x some data"},
		"curl TLS":          {[]string{"curl", "-sSk", url}, fmt.Sprintf("secure secure.example:%d", port)},
		"curl fronting":     {[]string{"curl", "-sSk", "--connect-to", "front.example:443:" + fmt.Sprintf("secure.example:%d", port), "https://front.example/"}, ""},
		"curl other Host":   {[]string{"curl", "-sS", "-w", "%{http_code}", "-H", "Host: evil.example", "http://plain.example/x"}, "400"},
		"curl to metadata":  {[]string{"curl", "-sS", "-w", "%{http_code}", "http://169.254.169.254/latest/meta-data/"}, "403"},
		"curl HTTP/2 clear": {[]string{"curl", "-sS", "-w", "%{http_code}", "--http2", "http://plain.example/x"}, "400"},
		"python":            {[]string{"python3", "-c", python, "http://plain.example/x"}, "GET plain.example/x"},
		"python TLS":        {[]string{"python3", "-c", python, url}, fmt.Sprintf("secure secure.example:%d", port)},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := f.run(c.argv...)
			if c.want == "" {
				if err == nil {
					t.Errorf("succeeded: %s", out)
				}
			} else if !strings.Contains(out, c.want) {
				t.Errorf("got %q (%v), want %q", out, err, c.want)
			}
		})
	}
}

// git over HTTP, from a repository that a plain file server holds.
func TestGitClone(t *testing.T) {
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo.git")
	sh := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script, "sh", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("this machine has no git")
	}
	sh(`cd "$1"; git init -q -b main w; cd w; echo hello >f; git add f
git -c user.name=E -c user.email=e@example.com commit -q -m one; git clone -q --bare . ../repo.git; git -C ../repo.git update-server-info`)
	s := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(repo))))
	defer s.Close()
	f := start(t, anyPort("git.example"))
	f.route("git.example", 80, s.Listener.Addr().String())
	if out, err := f.run("git", "clone", "-q", "http://git.example/repo.git", filepath.Join(dir, "clone")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "clone", "f")); string(b) != "hello\n" {
		t.Errorf("clone holds %q, %v", b, err)
	}
}

// run starts a real client behind the proxy; a missing one skips the test.
func (f *fixture) run(argv ...string) (string, error) {
	f.t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		f.t.Logf("this machine has no %s", argv[0])
		return "", nil
	}
	c := exec.Command(argv[0], argv[1:]...)
	proxy := "http://" + f.addr
	for _, v := range []string{"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		c.Env = append(c.Env, v+"="+proxy)
	}
	c.Env = append(c.Env, "no_proxy=", "NO_PROXY=", "PATH="+os.Getenv("PATH"), "HOME="+f.t.TempDir())
	out, err := c.CombinedOutput()
	return string(out), err
}

// A WebSocket passes once the server itself has switched, and only that.
func TestWebSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				proto := req.Header.Get("Upgrade")
				if req.URL.Path == "/other" {
					proto = "h2c"
				}
				fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", proto)
				io.Copy(c, r)
			}()
		}
	}()
	host, port := hostPort(t, l.Addr().String())
	f := start(t, []exeq.Endpoint{{Host: host, Port: port}})
	ask := func(path, upgrade string) (*http.Response, *bufio.Reader, net.Conn) {
		t.Helper()
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET http://%s:%d%s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n", host, port, path, host, port, upgrade)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp, r, c
	}
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	resp, r, c := ask("/", upgrade)
	if resp.StatusCode != 101 {
		t.Fatalf("got %s, want 101", resp.Status)
	}
	io.WriteString(c, "frame")
	b := make([]byte, 5)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "frame" {
		t.Errorf("got %q, %v", b, err)
	}
	f.g.set(func(string) bool { return false })
	f.p.Recheck(t.Context())
	if _, err := r.ReadByte(); err == nil {
		t.Error("the denied WebSocket is still open")
	}
	f.g.set(everything)
	if resp, _, _ := ask("/other", upgrade); resp.StatusCode != 502 {
		t.Errorf("a switch to another protocol: %s, want 502", resp.Status)
	}
	if resp, _, _ := ask("/", ""); resp.StatusCode != 502 {
		t.Errorf("an unasked switch: %s, want 502", resp.Status)
	}
}
