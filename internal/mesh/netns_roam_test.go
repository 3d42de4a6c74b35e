package mesh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// logged says how often a line with that text is in the agent's log.
func (m *machine) logged(text string) int {
	m.w.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "log"))
	if err != nil {
		m.w.t.Fatal(err)
	}
	return strings.Count(string(b), text)
}

// TestNetnsRoaming changes the networks of machines that talk: lifetimes that
// are refreshed are nothing; anything else costs at most three seconds.
func TestNetnsRoaming(t *testing.T) {
	const changed = "own addresses or routes changed"
	w, hub1, _, ari, bianco := cats(t)
	w.startAll()
	flows := map[string]*flow{
		"bianco to hub1": bianco.flow(hub1), "hub1 to bianco": hub1.flow(bianco),
		"ari to hub1": ari.flow(hub1), "ari to bianco": ari.flow(bianco),
	}
	steady := func(what string, within time.Duration) {
		t.Helper()
		took := w.wait(what, 20*time.Second, func() bool {
			for _, f := range flows {
				if time.Since(f.last()) > 300*time.Millisecond {
					return false
				}
			}
			return true
		})
		if took > within {
			t.Errorf("%s: took %v", what, took)
		}
	}
	// rest lets what was changed be noticed, and the flows stop.
	rest := func() {
		begin := time.Now()
		w.wait("it is noticed", 2*time.Second, func() bool { return time.Since(begin) > 700*time.Millisecond })
	}
	advertise := func() { // the same prefix again
		w.Sh("ari", "ip -6 addr change 2001:db8:a::10/64 dev eth0 valid_lft 3600 preferred_lft 1800; ip -6 route replace default via 2001:db8:a::1 expires 1800")
	}
	// The first time, as an address that is for ever becomes one that is not, Linux
	// takes its prefix away for a moment.
	w.Sh("ari", "ip -6 addr change 2001:db8:a::10/64 dev eth0 valid_lft 3600 preferred_lft 1800 || true")
	advertise()
	steady("all talk", 20*time.Second)
	rest()

	before := ari.logged(changed)
	for range 10 {
		advertise()
	}
	rest()
	if n := ari.logged(changed) - before; n > 0 {
		t.Errorf("refreshed lifetimes were taken for %d changes", n)
	}

	for _, step := range []struct {
		what    string
		of      *machine // who notices; nil for nobody
		ns, cmd string
	}{
		{"another address", bianco, "bianco", "ip addr del 192.168.1.10/24 dev eth0; ip addr add 192.168.1.77/24 dev eth0; ip route replace default via 192.168.1.1"},
		{"another IPv6 prefix", ari, "ari", "ip addr add 2001:db8:b::10/64 dev eth0 nodad; ip -6 route replace default via 2001:db8:b::1 src 2001:db8:b::10; ip addr del 2001:db8:a::10/64 dev eth0"},
		{"the router forgot all", nil, "madrid", "ip link set wan down; ip link set wan up; ip route replace default via 203.0.113.1"},
	} {
		noticed := 0
		if step.of != nil {
			noticed = step.of.logged(changed)
		}
		if step.of == ari { // the provider and the router have the new one already
			w.Sh("london", "ip addr add 2001:db8:b::1/64 dev lan nodad")
			w.Sh("inet", "ip -6 route add 2001:db8:b::/64 via 2001:db8::101; ip -6 route del 2001:db8:a::/64")
		}
		begin := time.Now()
		w.Sh(step.ns, step.cmd)
		rest()
		steady(step.what, slack*3*time.Second-700*time.Millisecond)
		if step.of != nil && step.of.logged(changed) == noticed {
			t.Errorf("%s: %s did not notice", step.what, step.of.name)
		}
		for name, f := range flows {
			t.Logf("%s: %s: longest gap %v", step.what, name, f.gap(begin))
		}
	}
}
