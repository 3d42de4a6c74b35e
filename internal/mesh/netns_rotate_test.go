package mesh

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// lost is how many requests were not answered, though later ones were.
func (f *flow) lost() int {
	b, _ := os.ReadFile(f.out.Name())
	seen := make(map[int]bool)
	last := 0
	for line := range strings.Lines(string(b)) {
		var seq int
		if i := strings.Index(line, "icmp_seq="); i >= 0 && strings.Contains(line, "bytes from") {
			fmt.Sscanf(line[i:], "icmp_seq=%d", &seq)
			seen[seq], last = true, max(last, seq)
		}
	}
	missing := 0
	for i := 1; i < last; i++ {
		if !seen[i] {
			missing++
		}
	}
	return missing
}

// give hands the agent the key that it shall have next, and leaves it where a
// restarted one finds it.
func (m *machine) give() wire.PrivateKey {
	m.w.t.Helper()
	next, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		m.w.t.Fatal(err)
	}
	resp, err := m.ask("POST", "/key", bytes.NewReader(next.Encode()))
	if err != nil {
		m.w.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		m.w.t.Fatalf("POST /key: %s", resp.Status)
	}
	return next
}

// tell gives machines the configuration as it stands, and waits until they have
// it in force.
func (w *world) tell(machines ...*machine) {
	w.t.Helper()
	c := w.config()
	for _, m := range machines {
		before := m.reloads()
		m.write(c)
		m.reload()
		w.wait(m.name+" has read its configuration", 5*time.Second, func() bool { return m.reloads() > before })
	}
}

func (m *machine) reloads() int {
	b, _ := os.ReadFile(m.log.Name())
	return strings.Count(string(b), "configuration reloaded")
}

// uses is the key that m has for another, as WireGuard sees it: the one with the
// addresses.
func (m *machine) uses(other *machine) string {
	m.w.t.Helper()
	out := m.w.Run("nsenter", "-t", pidOf(m), "-m", "-n", "wg", "show", fleet.MeshInterface, "allowed-ips")
	for line := range strings.Lines(out) {
		if strings.Contains(line, other.node.V4.String()+"/32") {
			key, _, _ := strings.Cut(line, "\t")
			return key
		}
	}
	return ""
}

// TestNetnsRotate changes a node's key while everybody pings everybody: nothing
// may be lost, and the old key is worth nothing afterwards.
func TestNetnsRotate(t *testing.T) {
	for _, who := range []string{"bianco", "hub1"} {
		t.Run(who, func(t *testing.T) { rotate(t, who) })
	}
}

// TestNetnsRotateQuiet changes the key of a node that nobody talks to: who does
// then finds it. Its agent may be killed on the way, and the node may go back; and
// when all is over, who has the old key is a stranger.
func TestNetnsRotateQuiet(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.symmetric("madrid")
	w.symmetric("london")
	w.startAll()
	all := []*machine{hub1, hub2, ari, bianco}
	reached := func(when string) {
		t.Helper()
		var both sync.WaitGroup
		for _, m := range []*machine{ari, hub1} {
			both.Go(func() {
				lost, out := m.ping(bianco.node.V4, 10, "0.2")
				if lost > 5*slack {
					t.Errorf("%s: %d of 10 pings from %s lost\n%s", when, lost, m.name, out)
				}
			})
		}
		both.Wait()
	}
	reached("at the beginning")
	a, b := bianco.key, bianco.give()
	bianco.keys = []wire.PrivateKey{b}
	bianco.node.Next = b.Public()
	first := bianco.node
	w.tell(all...)
	bianco.node.Key, bianco.node.Next, bianco.node.Old = b.Public(), fleet.Key{}, a.Public()
	w.tell(bianco)
	reached("with the new key")

	bianco.stop(syscall.SIGKILL)
	bianco.start()
	reached("started anew with the new key")
	second := bianco.node
	bianco.node = first
	w.tell(bianco)
	reached("back at the old key")
	if got := ari.uses(bianco); got != a.Public().String() {
		t.Errorf("ari uses %s for bianco, and it went back to %s", got, a.Public())
	}
	bianco.node = second
	w.tell(bianco)
	bianco.node.Old = fleet.Key{}
	w.tell(all...)
	reached("with the new key alone")

	bianco.stop(syscall.SIGKILL)
	bianco.keys = nil
	was := bianco.node
	bianco.node = first
	bianco.write(w.config())
	bianco.start()
	if lost, _ := bianco.ping(hub1.node.V4, 5, "0.2"); lost < 5 {
		t.Errorf("with the old key %d of 5 pings are answered", 5-lost)
	}
	bianco.node = was
	if p := hub1.path(bianco); p.RTTMicro > 0 && p.HeardMs < 1500 {
		t.Errorf("hub1 answers probes made with the old key: %+v", p)
	}
}

func rotate(t *testing.T, who string) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.symmetric("madrid") // so that bianco and ari are relayed
	w.symmetric("london")
	w.startAll()
	all := []*machine{hub1, hub2, ari, bianco}
	flows := make(map[string]*flow)
	for i, a := range all {
		for _, b := range all[i+1:] {
			flows[a.name+" to "+b.name] = a.flow(b)
		}
	}
	w.wait("all pairs talk", 20*time.Second, func() bool {
		for _, f := range flows {
			if time.Since(f.last()) > 400*time.Millisecond {
				return false
			}
		}
		return true
	})
	settled := time.Now()
	w.wait("paths are settled", 10*time.Second, func() bool { return time.Since(settled) > 2*time.Second })
	m := w.nodes[who]
	before := make(map[string]int)
	for name, f := range flows {
		before[name] = f.lost()
	}
	begin := time.Now()

	old, next := m.key, m.give()
	m.node.Next = next.Public()
	w.tell(all...)
	m.node.Key, m.node.Next, m.node.Old = next.Public(), fleet.Key{}, old.Public()
	w.tell(m)
	for _, other := range all {
		if other == m {
			continue
		}
		w.wait(other.name+" uses the new key", 10*time.Second, func() bool { return other.uses(m) == next.Public().String() })
	}
	t.Logf("everybody uses the new key after %v", time.Since(begin))
	moved := time.Now()
	w.wait("a while", 5*time.Second, func() bool { return time.Since(moved) > time.Second })
	m.node.Old = fleet.Key{}
	w.tell(all...)
	done := time.Now()
	w.wait("a while", 5*time.Second, func() bool { return time.Since(done) > time.Second })
	// What pairs lose that it is nothing to is the busy machine's.
	most, longest := 2*slack, slack*500*time.Millisecond
	for name, f := range flows {
		if !strings.Contains(name, who) {
			most, longest = max(most, 2+f.lost()-before[name]), max(longest, f.gap(begin))
		}
	}
	for name, f := range flows {
		n, gap := f.lost()-before[name], f.gap(begin)
		t.Logf("%s: %d pings lost, longest gap %v", name, n, gap)
		if n > most || gap > 2*longest {
			t.Errorf("%s: %d pings lost, longest gap %v; the others lost %d at most, for %v", name, n, gap, most, longest)
		}
	}
}
