// Command torchwood checks Exeq's log with filippo.io/torchwood, which shares
// no code with Tessera.
//
//	torchwood receipt POLICY LEAF RECEIPT
//	torchwood log POLICY DIRECTORY EARLIER-CHECKPOINT
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "torchwood:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("want receipt POLICY LEAF RECEIPT or log POLICY DIRECTORY CHECKPOINT")
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	policy, err := torchwood.ParsePolicy(text)
	if err != nil {
		return err
	}
	switch args[0] {
	case "receipt":
		return receipt(policy, args[2], args[3])
	case "log":
		return wholeLog(policy, args[2], args[3])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func receipt(policy torchwood.Policy, leafFile, proofFile string) error {
	leaf, err := os.ReadFile(leafFile)
	if err != nil {
		return err
	}
	proof, err := os.ReadFile(proofFile)
	if err != nil {
		return err
	}
	return torchwood.VerifyProof(policy, tlog.RecordHash(leaf), proof)
}

// wholeLog reads every entry against the present checkpoint and proves that
// the log extends an earlier one.
func wholeLog(policy torchwood.Policy, dir, earlier string) error {
	ctx := context.Background()
	tiles, err := torchwood.NewTileFS(os.DirFS(dir))
	if err != nil {
		return err
	}
	open := func(b []byte, err error) (torchwood.Checkpoint, error) {
		if err != nil {
			return torchwood.Checkpoint{}, err
		}
		c, _, err := torchwood.VerifyCheckpoint(b, policy)
		return c, err
	}
	now, err := open(tiles.ReadEndpoint(ctx, "checkpoint"))
	if err != nil {
		return err
	}
	then, err := open(os.ReadFile(earlier))
	if err != nil {
		return err
	}
	client, err := torchwood.NewClient(tiles)
	if err != nil {
		return err
	}
	n := int64(0)
	for range client.AllEntries(ctx, now.Tree, 0) {
		n++
	}
	if err := client.Err(); err != nil {
		return err
	}
	if n != now.N {
		return fmt.Errorf("read %d of %d entries", n, now.N)
	}
	proof, err := tlog.ProveTree(now.N, then.N, torchwood.TileHashReaderWithContext(ctx, now.Tree, tiles))
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, now.N, now.Hash, then.N, then.Hash); err != nil {
		return err
	}
	fmt.Printf("%d entries, extends %d\n", now.N, then.N)
	return nil
}
