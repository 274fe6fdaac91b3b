//go:build !linux

package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/exeq/exeq"
)

var errNoEnforcement = errors.New("this needs Linux: on " + runtime.GOOS + " nothing holds a command to its permit, so none is started; verify, proof, policy and trust work here")

// revokeAtNode: no node runs here.
func revokeAtNode(context.Context, *exeq.Revocation) <-chan error { return nil }

func run(_ context.Context, c *call) int          { c.fail(errNoEnforcement); return exitExeqFailed }
func learn(_ context.Context, c *call) int        { c.fail(errNoEnforcement); return exitExeqFailed }
func scopeCommand(_ context.Context, c *call) int { return c.fail(errNoEnforcement) }
func doctor(_ context.Context, c *call) int       { return c.fail(errNoEnforcement) }
