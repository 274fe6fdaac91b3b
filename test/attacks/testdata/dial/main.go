// Command dial sends a token to an address: a Go program makes its system
// calls without libc.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "attack-begin")
	c, err := net.Dial(os.Args[1], os.Args[2])
	if err == nil {
		_, err = c.Write([]byte(os.Args[3]))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(77)
	}
}
