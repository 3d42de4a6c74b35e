// Package firewall keeps a node's access rules in force: it has nft(8) load them,
// and again whenever somebody changes or deletes our table. What they say is
// decided elsewhere (internal/engine/firewall); other tables are none of its
// business.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/firewall"
	"github.com/moggyfleet/moggy/internal/hint"
)

// ErrReload says that somebody wants the rules read anew. They are in force.
var ErrReload = errors.New("the rules shall be read anew")

// calm is how long rules stay as they are at least, so that a program that keeps
// deleting them and we do not keep the machine busy.
const calm = 100 * time.Millisecond

// Keeper keeps rules in force.
type Keeper struct {
	Rules  string       // path of what nft is given
	Notify func(string) // tells systemd (sd_notify(3)); may be nil
	Log    *slog.Logger
}

// Run loads the rules and keeps them in force until ctx is done: then it takes
// our table away. It returns ErrReload when reload says so; then, as after any
// other error, the table stays. Where the file's rules cannot be loaded, those
// that were in force before stay so.
func (k Keeper) Run(ctx context.Context, reload <-chan os.Signal) error {
	for {
		err := k.watched(ctx, reload)
		switch {
		case ctx.Err() != nil:
			return k.lift()
		case errors.Is(err, errMissed):
			k.Log.Warn("rules changed faster than they could be looked at: loading ours again")
		default:
			return err
		}
	}
}

// watched loads the rules and keeps them, for as long as the kernel tells of
// every change.
//
// Who changed our table is told by counting: each load of ours is one
// transaction of the kernel's that touches it, so with one more than those it
// was somebody else.
func (k Keeper) watched(ctx context.Context, reload <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := watch(ctx, firewall.Table)
	if err != nil {
		return err
	}
	if err := k.load(ctx); err != nil {
		return err
	}
	k.notify("READY=1")
	seen, ours, loaded := 0, 1, time.Now()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-reload:
			return ErrReload
		case c := <-changes:
			if c.err != nil {
				return c.err
			}
			if seen++; seen > ours && again == nil {
				k.Log.Warn("somebody changed the access rules: loading them again", "by", c.by)
				again = time.After(calm - time.Since(loaded))
			}
		case <-again:
			// What was seen until now is made up for; what was not seen yet is taken
			// for somebody's once more, and at worst loads the same again.
			again, ours = nil, seen+1
			if err := k.load(ctx); err != nil {
				return err
			}
			loaded = time.Now()
		}
	}
}

// load has nft replace our table, in one transaction.
func (k Keeper) load(ctx context.Context) error {
	if err := nft(ctx, "", "-f", k.Rules); err != nil {
		return fmt.Errorf("load %s: %w", k.Rules, err)
	}
	return nil
}

// lift takes our table away, if it is there.
func (k Keeper) lift() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	const table = "table inet " + firewall.Table
	if err := nft(ctx, table+" {\n}\ndelete "+table+"\n", "-f", "-"); err != nil {
		return fmt.Errorf("take the access rules away: %w", err)
	}
	return nil
}

func (k Keeper) notify(state string) {
	if k.Notify != nil {
		k.Notify(state)
	}
}

// nft runs nft(8), wherever a distribution has it.
func nft(ctx context.Context, stdin string, args ...string) error {
	path := "/usr/sbin/nft"
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("nft"); err != nil {
			return hint.New("there is no nft", "install the package nftables")
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
