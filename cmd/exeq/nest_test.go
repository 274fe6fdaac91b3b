//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// liar is a client of nested runs that does not keep to its word; the sessions
// of nested.txtar copy it in.
func liar() {
	proxy, err := url.Parse(os.Getenv("http_proxy"))
	if err != nil {
		panic(err)
	}
	c, err := net.Dial("tcp", proxy.Host)
	if err != nil {
		panic(err)
	}
	if os.Args[1] == "reach" {
		fmt.Fprint(c, "CONNECT nowhere.invalid:443 HTTP/1.1\r\nHost: nowhere.invalid:443\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Println("reach:", strings.TrimPrefix(line, "HTTP/1.1 "))
		return
	}
	fmt.Fprint(c, "CONNECT exeq.invalid:1 HTTP/1.1\r\nHost: exeq.invalid:1\r\n\r\n")
	in := bufio.NewReader(c)
	for line := ""; line != "\r\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			panic(err)
		}
	}
	send := func(v any) {
		b, _ := json.Marshal(v)
		c.Write(append(b, '\n'))
	}
	type object = map[string]any
	within := os.Getenv("EXEQ_EXECUTION")
	if os.Args[1] == "outer" {
		within = os.Getenv("OUTER")
	}
	dir, _ := os.Getwd()
	program, _ := exec.LookPath("sh")
	if real, err := os.Readlink(program); err == nil && !strings.Contains(real, "/") {
		program = "/usr/bin/" + real
	}
	send(object{"v": 1, "program": program, "argv": []string{"true"}, "dir": dir, "within": within})
	over := object{"exit": object{"code": 0}}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		var m struct {
			Start, Result *struct{ Error string }
			Ping, Kill    string
		}
		json.Unmarshal(line, &m)
		switch {
		case m.Start != nil:
			send(object{"running": true})
			switch os.Args[1] {
			case "orphan": // its parent dies before anybody looks
				exec.Command("sh", "-c", "sleep 1000 & exit 0").Run()
			case "child":
				exec.Command("sleep", "1000").Start()
				send(over)
			case "gone":
				exec.Command("sh", "-c", "sleep 1000 & exit 0").Run()
				os.Exit(0)
			}
		case m.Ping != "":
			send(object{"pong": m.Ping})
		case m.Kill != "":
			send(over)
		case m.Result != nil && os.Args[1] == "kill":
			time.Sleep(time.Hour)
		case m.Result != nil:
			if m.Result.Error != "" {
				fmt.Println("refused:", m.Result.Error)
			}
			return
		}
	}
}
