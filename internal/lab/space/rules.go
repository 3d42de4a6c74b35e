package space

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Rules has nft carry out the script in the namespace, as one transaction.
func Rules(ctx context.Context, name, script string) error {
	if script == "" {
		return nil
	}
	return Do(name, func() error {
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nft in %s: %w: %s", name, err, strings.TrimSpace(said.String()))
		}
		return nil
	})
}

// Forget empties the namespace's table of connections, so that its NAT starts
// anew.
func Forget(name string) error {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.ConntrackTableFlush(netlink.ConntrackTable); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget the connections of %s: %w", name, err)
	}
	return nil
}
