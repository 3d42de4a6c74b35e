package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// flow is a ping that runs, every 50 ms, while something is broken.
type flow struct {
	cmd *exec.Cmd
	out *os.File
}

func (m *machine) flow(to *machine) *flow {
	m.w.t.Helper()
	out, err := os.CreateTemp(m.w.t.TempDir(), "ping")
	if err != nil {
		m.w.t.Fatal(err)
	}
	f := &flow{cmd: exec.Command("ip", "netns", "exec", m.ns, "stdbuf", "-oL", "ping", "-D", "-n", "-i", "0.05", to.node.V4.String()), out: out}
	f.cmd.Stdout = out
	if err := f.cmd.Start(); err != nil {
		m.w.t.Fatal(err)
	}
	m.w.t.Cleanup(func() { f.end() })
	return f
}

func (f *flow) end() {
	if f.cmd.ProcessState == nil {
		_ = f.cmd.Process.Signal(os.Interrupt)
		_ = f.cmd.Wait()
	}
}

// gap is the longest time without an answer since a moment.
func (f *flow) gap(since time.Time) time.Duration {
	b, _ := os.ReadFile(f.out.Name())
	times := []float64{float64(since.UnixNano()) / 1e9}
	for line := range strings.Lines(string(b)) {
		var at float64
		if n, _ := fmt.Sscanf(line, "[%f]", &at); n == 1 && at > times[0] {
			times = append(times, at)
		}
	}
	slices.Sort(times)
	if now := float64(time.Now().UnixNano()) / 1e9; now-times[len(times)-1] > 1 { // less may be on its way into the file
		times = append(times, now)
	}
	var gap float64
	for i := 1; i < len(times); i++ {
		gap = max(gap, times[i]-times[i-1])
	}
	return time.Duration(gap * float64(time.Second)).Round(time.Millisecond)
}

// TestNetnsReload takes a new configuration over while data flows: nothing may
// be lost, and a node that was removed is cut off: hubs and others refuse its key,
// and answer nothing that it sends.
func TestNetnsReload(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	maco := w.public("maco", false, "203.0.113.14", "2001:db8::14") // no hub, and reached without any
	w.startAll()
	f := bianco.flow(hub1)
	w.wait("bianco and hub1 talk", 10*time.Second, func() bool { return bianco.path(hub1).RTTMicro > 0 })
	if lost, out := ari.ping(hub2.node.V4, 5, "0.2"); lost > 1 {
		t.Fatalf("ari to hub2: %d lost\n%s", lost, out)
	}
	for _, other := range []*machine{maco, bianco} {
		if lost, out := ari.ping(other.node.V4, 5, "0.2"); lost > 1 {
			t.Fatalf("ari to %s: %d lost\n%s", other.name, lost, out)
		}
	}
	begin := time.Now()
	before := w.handshake(bianco, hub1)
	c := w.without(ari)
	rest := []*machine{hub1, hub2, bianco, maco}
	for _, m := range rest {
		m.write(c)
		m.reload()
	}
	w.wait("all have forgotten ari", 5*time.Second, func() bool {
		return !slices.ContainsFunc(rest, func(m *machine) bool {
			s, err := m.status("")
			return err != nil || len(s.Peers) != len(rest)-1
		})
	})
	answers := w.capture("ari", true, 10)
	w.wait("a while", 3*time.Second, func() bool { return time.Since(begin) > 1500*time.Millisecond })
	if gap := f.gap(begin); gap > slack*400*time.Millisecond {
		t.Errorf("silent for %v over the reload", gap)
	}
	if after := w.handshake(bianco, hub1); after != before {
		t.Errorf("bianco and hub1 shook hands again: %s, before %s", after, before)
	}
	for _, m := range rest {
		if lost, _ := ari.ping(m.node.V4, 2, "0.2"); lost < 2 {
			t.Errorf("ari was removed, and %s answered %d of 2 pings", m.name, 2-lost)
		}
	}
	if n, _ := answers.counted(); n > 0 {
		t.Errorf("ari was removed, and got %d datagrams", n)
	}
	// A configuration that makes no sense leaves the old one in force.
	bad := c
	bad.Nodes = nil
	bianco.write(bad)
	bianco.reload()
	if lost, out := bianco.ping(hub1.node.V4, 5, "0.2"); lost > 1 {
		t.Errorf("after a bad configuration: %d lost\n%s", lost, out)
	}
}

// handshake is when m last shook hands with another, as wg(8) shows it.
func (w *world) handshake(m, other *machine) string {
	w.t.Helper()
	out := w.Run("nsenter", "-t", pidOf(m), "-m", "-n", "wg", "show", fleet.MeshInterface, "latest-handshakes")
	for line := range strings.Lines(out) {
		if key, at, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && key == other.node.Key.String() {
			return at
		}
	}
	return ""
}

// TestNetnsPeerRestart restarts one end of a direct path, and of a relayed one.
func TestNetnsPeerRestart(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.startAll()
	_ = hub2
	direct, relayed := hub1.flow(ari), bianco.flow(ari)
	w.wait("ari talks to both", 10*time.Second, func() bool {
		return hub1.path(ari).RTTMicro > 0 && bianco.path(ari).RTTMicro > 0
	})
	ari.stop(syscall.SIGKILL)
	begin := time.Now()
	ari.start()
	up := time.Since(begin)
	for name, m := range map[string]*machine{"hub1 to ari": hub1, "bianco to ari": bianco} {
		w.wait(name, restartWithin, func() bool { lost, _ := m.ping(ari.node.V4, 1, "0.2"); return lost == 0 })
	}
	for name, f := range map[string]*flow{"hub1 to ari": direct, "bianco to ari": relayed} {
		again := f.gap(begin) - up
		t.Logf("%s: talking again %v after its agent was up (%v)", name, again, up)
		if wanted := 1500 * time.Millisecond; thorough() && again > wanted {
			t.Errorf("%s: talking again after %v, want %v", name, again, wanted)
		}
	}
}

// restartWithin bounds how long a pair may be silent when an agent restarts
// while both talk. WireGuard alone takes 5 or 15 s when the two ends' handshakes
// cross.
const restartWithin = slack * 2500 * time.Millisecond

// TestNetnsPunch: Linux' masquerade keeps ports, so two machines behind it find
// a direct path.
func TestNetnsPunch(t *testing.T) {
	w, _, _, ari, bianco := cats(t)
	w.startAll()
	bianco.flow(ari)
	took := w.wait("bianco and ari talk directly", 45*time.Second, func() bool {
		return bianco.path(ari).Path == fleet.PathDirectV4 && ari.path(bianco).Path == fleet.PathDirectV4
	})
	t.Logf("direct after %v", took)
}

// symmetric makes a router's NAT give every connection a port of its own.
func (w *world) symmetric(router string) {
	w.t.Helper()
	w.Sh(router, `nft flush chain inet home translate; nft add rule inet home translate meta nfproto ipv4 oifname "wan" masquerade random,fully-random`)
}

// last is when the last answer came.
func (f *flow) last() time.Time {
	b, _ := os.ReadFile(f.out.Name())
	i := strings.LastIndexByte(string(b), '[')
	var at float64
	if i < 0 {
		return time.Time{}
	}
	if n, _ := fmt.Sscanf(string(b[i:]), "[%f]", &at); n != 1 {
		return time.Time{}
	}
	return time.Unix(0, int64(at*1e9))
}

// TestNetnsReturn takes each machine away for some seconds while all ping all:
// both ends of its pairs want to talk at the moment when it is back.
func TestNetnsReturn(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.startAll()
	all := []*machine{hub1, hub2, ari, bianco}
	flows := map[[2]string]*flow{}
	for _, a := range all {
		for _, b := range all {
			if a != b {
				flows[[2]string{a.name, b.name}] = a.flow(b)
			}
		}
	}
	steady := func(what string) time.Duration {
		return w.wait(what, 20*time.Second, func() bool {
			for _, f := range flows {
				if time.Since(f.last()) > 400*time.Millisecond {
					return false
				}
			}
			return true
		})
	}
	steady("all pairs talk")
	for _, m := range all {
		m.stop(syscall.SIGKILL)
		gone := time.Now()
		w.wait("a while", 4*time.Second, func() bool { return time.Since(gone) > 3*time.Second })
		m.start()
		took := steady("all pairs with " + m.name + " talk again")
		t.Logf("%s: all pairs talk %v after it is back", m.name, took)
		if took > restartWithin {
			t.Errorf("%s: back for %v before all of its pairs talk", m.name, took)
		}
	}
}
