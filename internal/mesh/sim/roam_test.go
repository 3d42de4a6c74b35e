package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// roamWithin is how soon a machine that moved, or woke up, must be talking again.
const roamWithin = 3 * time.Second

// move changes how ari or bianco are connected, and returns for how long they
// are away on purpose.
type move struct {
	name  string
	mover func(*cats) *Node
	do    func(c *cats, n *Node) (away time.Duration)
}

func moves() []move {
	ari := func(c *cats) *Node { return c.ari }
	bianco := func(c *cats) *Node { return c.bianco }
	elsewhere := func(c *cats, v6 bool) *Network { return c.behindCarrier(50, v6) }
	return []move{
		{"address in the same network", bianco, func(c *cats, n *Node) time.Duration {
			n.Move(n.net, addr("192.168.1.77"))
			return 0
		}},
		{"another network, IPv4", bianco, func(c *cats, n *Node) time.Duration {
			n.Move(elsewhere(c, false), addr("192.168.7.10"))
			return 0
		}},
		{"another network, IPv6 lost", ari, func(c *cats, n *Node) time.Duration {
			n.Move(elsewhere(c, false), addr("192.168.7.10"))
			return 0
		}},
		{"another network, IPv6 gained", bianco, func(c *cats, n *Node) time.Duration {
			n.Move(elsewhere(c, true), addr("192.168.7.10"), addr("2001:db8:132:1::10"))
			return 0
		}},
		{"IPv6 prefix", ari, func(c *cats, n *Node) time.Duration {
			was, is := netip.MustParsePrefix("2001:db8:a:1::/64"), netip.MustParsePrefix("2001:db8:a:2::/64")
			router := n.net.gateway
			router.outer.route(was, nil)
			router.outer.route(is, router)
			n.Move(n.net, addr("192.168.1.10"), addr("2001:db8:a:2::10"))
			return 0
		}},
		{"NAT rebooted", bianco, func(c *cats, n *Node) time.Duration {
			n.net.gateway.Reboot()
			return 0
		}},
		{"both NATs rebooted", ari, func(c *cats, n *Node) time.Duration {
			n.net.gateway.Reboot()
			n.net.gateway.outer.gateway.Reboot()
			return 0
		}},
		{"default route by another line", bianco, func(c *cats, n *Node) time.Duration {
			line := c.Network(5 * time.Millisecond)
			c.Router(line, c.Internet, addr("192.0.2.60"), linux, netip.Prefix{})
			router := n.net.gateway // which does not tell it
			router.outer, line.devices[router.v4] = line, router
			router.Reboot()
			return 0
		}},
		{"asleep for an hour", bianco, func(c *cats, n *Node) time.Duration {
			n.Suspend(time.Hour)
			return time.Hour
		}},
		{"asleep for an hour, IPv6", ari, func(c *cats, n *Node) time.Duration {
			n.Suspend(time.Hour)
			return time.Hour
		}},
	}
}

// TestRoaming: whatever changes below a machine, it talks to hubs and to nodes
// again within three seconds, both ways, if they talked before; and who wants to
// talk to it anew reaches it at once.
func TestRoaming(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	for _, m := range moves() {
		t.Run(m.name, func(t *testing.T) {
			var gaps []time.Duration
			for seed := range uint64(*runs) {
				gaps = append(gaps, m.run(t, seed))
			}
			fmt.Fprintf(&table, "\n%-32s %6v %6v", m.name, part(gaps, 50), slices.Max(gaps))
		})
	}
	t.Logf("%d runs each, longest gap, p50 and max:%s", *runs, table.String())
}

func (m move) run(t *testing.T, seed uint64) (worst time.Duration) {
	t.Helper()
	c := newCats(seed)
	n := m.mover(c)
	defer c.drawn(t, n)()
	pings := func() []*Stream {
		return []*Stream{n.Ping(c.cosmo, 100*time.Millisecond), c.miki.Ping(n, 100*time.Millisecond), c.ziggy.Ping(n, 100*time.Millisecond)}
	}
	before := pings()
	c.Run(15*time.Second + time.Duration(seed)*173*time.Millisecond)
	for _, s := range before {
		s.Stop()
	}
	begin, streams, sent := c.Now(), pings(), c.Sent.Packets
	if away := m.do(c, n); away > 0 {
		for _, s := range streams {
			s.Stop() // an hour of pings to nobody teaches nothing
		}
		c.Run(away)
		begin, streams, sent = c.Now(), pings(), c.Sent.Packets
	}
	c.Run(2 * time.Second)
	if rate := (c.Sent.Packets - sent) / 2; rate > 1000 {
		t.Errorf("seed %d: %d packets a second to find new ways", seed, rate)
	}
	c.Run(13 * time.Second)
	fresh := []*Stream{c.maco.Ping(n, 100*time.Millisecond), n.Ping(c.maco, 100*time.Millisecond)}
	c.Run(5 * time.Second)
	for i, s := range append(streams, fresh...) {
		gap := s.Gap(c.Now())
		worst = max(worst, gap)
		if gap > roamWithin {
			t.Errorf("seed %d: stream %d silent for %v of %v", seed, i, gap, c.Now().Sub(begin))
		}
	}
	return worst
}

// TestClocks: machines whose clocks are a year apart reach each other as if they
// were not, one that starts later too, and a hub's death is nothing else to them.
func TestClocks(t *testing.T) {
	c := newCats(21)
	defer c.drawn(t)()
	year := 365 * 24 * time.Hour
	c.ari.slept, c.miki.slept = year, -year // behind, and ahead
	c.Start(c.ari, c.miki)
	c.Run(2 * time.Second)
	var streams []*Stream
	for _, pair := range [][2]*Node{{c.ari, c.miki}, {c.miki, c.bianco}, {c.bianco, c.ari}, {c.ziggy, c.ari}} {
		streams = append(streams, pair[0].Ping(pair[1], 50*time.Millisecond))
	}
	c.Run(10 * time.Second)
	c.cosmo.Stop()
	c.maco.Stop() // one of the two relays, or miki does
	c.Run(10 * time.Second)
	for i, s := range streams {
		if gap := s.Gap(c.Now()); gap > time.Second {
			t.Errorf("stream %d: %d of %d answered, silent for %v", i, s.Answered, s.Sent, gap)
		}
	}
}
