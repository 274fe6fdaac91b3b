//go:build linux

package main

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/exeq/exeq/node"
)

// unit is the service as systemd has it.
//
//go:embed exeq-node.service
var unit string

// install makes what serve needs, and starts nothing.
func install(fs *flag.FlagSet, argv []string, out io.Writer) error {
	var p places
	var issuer, promise, uids, file, unitPath string
	var scopes bool
	p.define(fs)
	fs.StringVar(&file, "trust-file", "", "file that `exeq trust export --node` wrote: trust this issuer")
	fs.StringVar(&issuer, "issuer", "", "or: the issuer's public key, base64")
	fs.StringVar(&promise, "promise", "", "and the verifier key of its log's promises")
	fs.StringVar(&uids, "uids", "", "and the users whose executions it may permit, by number, with commas")
	fs.BoolVar(&scopes, "scopes", false, "and it may declare mandatory scopes, which hold others than its users")
	fs.StringVar(&unitPath, "unit", "/etc/systemd/system/exeq-node.service", "where the systemd unit goes; empty: nowhere")
	if err := parse(fs, argv); err != nil {
		return err
	}
	for _, d := range []string{p.state, p.trust} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	t, err := trustOf(file, issuer, promise, uids)
	if err != nil {
		return err
	}
	if t != nil {
		t.Scopes = t.Scopes || scopes
		if err := writeTrust(p.trust, t, out); err != nil {
			return err
		}
	}
	if unitPath == "" {
		return nil
	}
	if err := os.WriteFile(unitPath, []byte(unit), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: written; start it: systemctl daemon-reload && systemctl enable --now exeq-node\n", unitPath)
	return nil
}

// trustOf reads whom to trust; nil: nobody new.
func trustOf(file, issuer, promise, uids string) (*node.Trust, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return node.DecodeTrust(b)
	}
	if issuer == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.Strict().DecodeString(issuer)
	if err != nil {
		return nil, errors.New("issuer: not base64")
	}
	t := node.Trust{Version: 1, Issuer: key, Promise: promise}
	for s := range strings.SplitSeq(uids, ",") {
		uid, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("uids: %q is no number", s)
		}
		t.UIDs = append(t.UIDs, uid)
	}
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return node.DecodeTrust(b)
}

// writeTrust names the file by the issuer's key: one issuer is trusted once.
func writeTrust(dir string, t *node.Trust, out io.Writer) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, t.KeyID()+".json")
	tmp, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: permits of this issuer are taken from users %v\n", name, t.UIDs)
	if t.Scopes {
		fmt.Fprintf(out, "%s: it may declare mandatory scopes\n", name)
	}
	return nil
}
