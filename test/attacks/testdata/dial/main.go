// Command dial sends a token to an address: a Go program makes its system
// calls without libc. With "node" it talks to the node's socket.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/exeq/exeq/node/client"
)

func main() {
	fmt.Fprintln(os.Stderr, "attack-begin")
	if os.Args[1] == "node" {
		ask(os.Args[2])
		return
	}
	c, err := net.Dial(os.Args[1], os.Args[2])
	if err == nil {
		_, err = c.Write([]byte(os.Args[3]))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(77)
	}
}

func ask(socket string) {
	if _, _, err := client.Look(context.Background(), socket); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(77)
	}
	fmt.Println("NODE-ANSWERED")
}
