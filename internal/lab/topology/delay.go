package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Delay holds every packet that a node or a site sends beyond its site's
// router, or is sent from there: so long each way.
type Delay struct {
	Of  Party         `json:"of"`
	For time.Duration `json:"for"` // in nanoseconds
	// Queue is the netfilter queue that its packets wait in, another for each
	// delay: what is held in one is lost when that is taken for something else.
	Queue uint16 `json:"queue"`
}

// Slowness is what makes a router slow: scripts for iptables-restore and
// ip6tables-restore that hand packets to queues, and for how long each queue
// holds them.
type Slowness struct {
	V4, V6 string
	Queues map[uint16]time.Duration
}

var errNoRouter = errors.New("stands behind no router that could hold its packets")

// Slowness returns, for every site's router, what makes exactly these delays. A
// packet is held once: a node's delay counts more than its site's.
//
// What leaves is held before connections are tracked: of two packets of a
// connection that nobody knows yet, held at the same time, the second would be
// dropped as not fitting to the first. What arrives is held after, since only
// then it is known for whom it is.
func (n *Network) Slowness(delays []Delay) (map[string]Slowness, error) {
	for _, d := range delays {
		if d.Of.Node == "" && d.Of.Site == "" {
			return nil, fmt.Errorf("%s %w", d.Of, errNoRouter)
		}
	}
	out := map[string]Slowness{}
	for _, s := range n.sites {
		w := slowWriter{queues: map[uint16]time.Duration{}}
		for _, m := range s.machines {
			for _, d := range delays {
				if d.Of.Node == m.Node {
					w.hold(d, m.V4, m.V6)
				}
			}
		}
		for _, d := range delays {
			if d.Of.Node == "" && d.Of.Site == s.Name {
				w.hold(d, netip.IPv4Unspecified(), netip.IPv6Unspecified())
			}
		}
		out[Router(s.Name)] = w.slowness(s)
	}
	return out, nil
}

// slowWriter gathers one router's rules, for IPv4 and IPv6.
type slowWriter struct {
	leaving, arriving [2][]string
	queues            map[uint16]time.Duration
}

// hold adds the rules for what goes to and from an address of each family, or
// everybody where it is the unspecified one.
func (w *slowWriter) hold(d Delay, addrs ...netip.Addr) {
	w.queues[d.Queue] = d.For
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		family, from, to := 0, "", ""
		if a.Is6() {
			family = 1
		}
		if !a.IsUnspecified() {
			from, to = fmt.Sprintf(" -s %s", a), fmt.Sprintf(" -d %s", a)
		}
		queue := fmt.Sprintf(" -j NFQUEUE --queue-bypass --queue-num %d", d.Queue)
		w.leaving[family] = append(w.leaving[family], "-A PREROUTING -i lan"+from+queue)
		w.arriving[family] = append(w.arriving[family], "-A FORWARD -i wan"+to+queue)
	}
}

func (w *slowWriter) slowness(s site) Slowness {
	// What neighbours send each other by way of the router stays quick.
	var near [2][]string
	for _, m := range s.machines {
		for family, a := range []netip.Addr{m.V4, m.V6} {
			if a.IsValid() && len(w.leaving[family]) > 0 {
				near[family] = append(near[family], fmt.Sprintf("-A PREROUTING -i lan -d %s -j RETURN", a))
			}
		}
	}
	script := func(family int) string {
		var b strings.Builder
		for _, table := range []struct {
			head  string
			rules []string
		}{
			{"*raw\n:PREROUTING ACCEPT [0:0]\n", slices.Concat(near[family], w.leaving[family])},
			{"*mangle\n:FORWARD ACCEPT [0:0]\n", w.arriving[family]},
		} {
			b.WriteString(table.head)
			for _, r := range table.rules {
				b.WriteString(r + "\n")
			}
			b.WriteString("COMMIT\n")
		}
		return b.String()
	}
	return Slowness{V4: script(0), V6: script(1), Queues: w.queues}
}
