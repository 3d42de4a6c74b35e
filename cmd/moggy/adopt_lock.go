package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config/lock"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// adoptLock writes the lock anew from what the nodes hold. A lock that is whole
// is left alone: it knows more.
func (a *app) adoptLock(ctx context.Context, args []string, yes bool) error {
	if len(args) > 0 {
		return hint.New("adopt --lock asks every node", "moggy adopt --lock")
	}
	f, err := a.LoadFleet()
	if err != nil {
		return err
	}
	name := cli.LockName(a.Files[0])
	if err := a.lockIsLost(name); err != nil {
		return err
	}
	var made *fleet.Lock
	d, done, err := a.NewDeployment(f, func(l *fleet.Lock) error { made = l.Clone(); return nil })
	if err != nil {
		return err
	}
	defer done()
	if err := d.Open(&fleet.Lock{}); err != nil {
		return err
	}
	failed, err := d.Recover(ctx)
	if err != nil {
		return cli.Interrupted(ctx, err)
	}
	known := 0
	for _, n := range made.Nodes {
		if !n.MeshKey.IsZero() {
			known++
		}
	}
	fmt.Fprintf(a.Stderr, "%d of %d nodes are known again, on generation %d at the most.\n", known, len(f.Nodes), made.Generation)
	for _, node := range slices.Sorted(maps.Keys(failed)) {
		fmt.Fprintf(a.Stderr, "moggy: note:  %s could not be asked; its host key is asked for when it can: %v\n", node, failed[node])
	}
	if !yes {
		ok, err := a.Confirm("Write "+name+"?", "--yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("not written, nothing was changed")
		}
	}
	return a.replaceLock(name, made)
}

// lockIsLost refuses to replace a lock that can be read.
func (a *app) lockIsLost(name string) error {
	content, err := cli.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l, diags := lock.Parse(source.Text{Name: name, Content: content})
	if diags.Mistakes() > 0 || l == nil || len(l.Lock().Nodes) == 0 {
		return nil
	}
	return hint.New(name+" is whole: nothing was changed", "if it is the wrong one all the same, move it away first")
}

// replaceLock writes the lock, keeping a damaged one beside it.
func (a *app) replaceLock(name string, next *fleet.Lock) error {
	text, err := lock.New(name).Update(next)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		kept := name + ".broken-" + time.Now().UTC().Format("20060102T150405Z")
		if err := os.Rename(name, kept); err != nil {
			return err
		}
		fmt.Fprintf(a.Stderr, "The damaged one is %s now.\n", kept)
	}
	if err := cli.ReplaceFile(name, text); err != nil {
		return err
	}
	fmt.Fprintf(a.Stderr, "Written: %s. Next: moggy plan\n", name)
	return nil
}
