// Command registry is a loopback npm registry: it serves the packages whose
// tarballs lie in a directory, packuments made from the tarballs themselves.
//
//	registry -packages DIR [-listen 127.0.0.1:0]
//
// DIR holds *.tgz as `npm pack` writes them. The address in use is the one
// line on standard output.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("registry: ")
	listen := flag.String("listen", "127.0.0.1:0", "loopback `address` to listen on")
	dir := flag.String("packages", "", "`directory` of tarballs")
	flag.Parse()
	r, err := load(*dir)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	log.Fatal(http.Serve(l, r))
}
