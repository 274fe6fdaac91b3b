package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/exeq/exeq/internal/standalone"
	"github.com/exeq/exeq/policy"
	"github.com/exeq/exeq/server"
)

// serving is what serve is asked for.
type serving struct {
	state, policy, listen, url, cert, key string
	applications                          []string
	dev                                   bool
}

// serve answers enforcement points until it is told to end.
func serve(ctx context.Context, c *call) int {
	var o serving
	_, status, ok := c.flags(func(fs *flag.FlagSet) {
		fs.StringVar(&o.state, "state", "", "state directory")
		fs.StringVar(&o.policy, "policy", "", "policy directory or file; empty: the state's own")
		fs.StringVar(&o.listen, "listen", "127.0.0.1:7077", "address to listen at")
		fs.StringVar(&o.url, "url", "", "https URL that callers use, as the metadata tells it; empty: of the address")
		fs.StringVar(&o.cert, "tls-cert", "", "certificate file (PEM)")
		fs.StringVar(&o.key, "tls-key", "", "key file (PEM)")
		fs.BoolVar(&o.dev, "dev", false, "on this machine alone, with a certificate of its own making")
		fs.Func("application", "directory of an application's schema, policies and entities; may be given again", func(dir string) error {
			o.applications = append(o.applications, dir)
			return nil
		})
	})
	if !ok {
		return status
	}
	if o.dev == (o.cert != "" || o.key != "") {
		return c.misuse("want either --dev or --tls-cert and --tls-key")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := c.serve(ctx, &o); err != nil {
		return c.fail(err)
	}
	return 0
}

func (c *call) serve(ctx context.Context, o *serving) (err error) {
	dir, err := stateDir(o.state)
	if err != nil {
		return err
	}
	var apps []*policy.Application
	for _, a := range o.applications {
		app, err := policy.LoadApplication(a)
		if err != nil {
			return fmt.Errorf("application %s: %w", a, err)
		}
		apps = append(apps, app)
	}
	in, err := standalone.Open(ctx, standalone.Options{Dir: dir, Policy: o.policy, Say: func(line string) { fmt.Fprintf(c.stderr, "exeq: %s\n", line) }, Log: c.log()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	local, err := server.OpenLocal(filepath.Join(dir, "server"))
	if err != nil {
		return err
	}
	l, err := o.open(local)
	if err != nil {
		return err
	}
	defer l.Close()
	if o.url == "" {
		o.url = "https://" + l.Addr().String()
	}
	s, err := server.New(server.Config{
		Installation: in, Applications: apps, Base: o.url, Token: local.Token, Log: c.log(),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "exeq serves %s\ntoken: %s\n", o.url, local.TokenFile)
	if o.dev {
		fmt.Fprintf(c.stdout, "certificate: %s\n", local.CAFile)
	}
	var draining sync.WaitGroup
	drain, enough := context.WithCancel(context.WithoutCancel(ctx))
	var left error
	draining.Go(func() { left = in.DrainWhile(drain) })
	err = s.Serve(ctx, l)
	enough() // after the last answer
	draining.Wait()
	return errors.Join(err, left)
}

// open listens with TLS.
func (o *serving) open(local *server.Local) (net.Listener, error) {
	cert := local.Certificate
	if !o.dev {
		var err error
		if cert, err = tls.LoadX509KeyPair(o.cert, o.key); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, err
	}
	if at, ok := l.Addr().(*net.TCPAddr); o.dev && (!ok || !at.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("--dev is for this machine alone, and %s is not a loopback address; for others give --tls-cert and --tls-key", o.listen)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}), nil
}
