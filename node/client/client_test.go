//go:build linux

package client

import "github.com/exeq/exeq/enforce"

var _ enforce.Warden = (*Client)(nil)
