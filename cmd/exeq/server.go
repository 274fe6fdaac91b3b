//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/exeq/exeq/client"
	"github.com/exeq/exeq/internal/osfile"
	"github.com/exeq/exeq/internal/standalone"
)

// Variables that say which server decides, what its certificate is checked
// against, and where the token lies that it is shown.
const (
	serverVariable      = "EXEQ_SERVER"
	serverCAVariable    = "EXEQ_SERVER_CA"
	serverTokenVariable = "EXEQ_SERVER_TOKEN_FILE"
)

// reach makes the client of the server that was named, if one was. Whether it
// answers shows when it is asked; then there is no way back to deciding here.
func (o *runOptions) reach() error {
	if o.url == "" {
		return nil
	}
	file := os.Getenv(serverTokenVariable)
	if file == "" {
		return fmt.Errorf("a server is named (%s), and %s does not say where its token lies", o.url, serverTokenVariable)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the server's token: %w", err)
	}
	o.server, err = client.New(client.Config{URL: o.url, CAFile: os.Getenv(serverCAVariable), Token: strings.TrimSpace(string(token))})
	return err
}

// writeProof writes the proof of what was recorded, here or at the server.
func (o *runOptions) writeProof(ctx context.Context, inst *standalone.Installation, id string, to *osfile.Output) error {
	if o.server == nil {
		return inst.WriteProof(ctx, id, to)
	}
	b, err := o.server.Proof(ctx, id)
	if err != nil {
		return err
	}
	return to.Put(append(b, '\n'))
}
