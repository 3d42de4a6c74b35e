package mesh

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// scrape asks a node's mesh address for its metrics, from a namespace.
func (w *world) scrape(from string, of *machine) string {
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`, of.node.V4, testPort)
	out, _ := exec.Command("ip", "netns", "exec", w.Name(from), "timeout", "3", "bash", "-c", script).CombinedOutput() // no answer is an error to it
	return string(out)
}

// bothVary is why there is no direct IPv4 between ari and bianco; either's half of it
// is known a little earlier.
const bothVary = "both are behind NAT that maps per destination"

// TestNetnsVisible: a node says how it reaches another and why not otherwise, and
// gives metrics to the mesh alone.
func TestNetnsVisible(t *testing.T) {
	w, hub1, hub2, ari, bianco := cats(t)
	w.symmetric("madrid") // so that the pair stays relayed
	w.symmetric("london")
	w.startAll()
	bianco.flow(ari)
	var p fleet.PeerStatus
	w.wait("bianco knows all ways to ari", 20*time.Second, func() bool {
		resp, err := bianco.ask("GET", "/ways/ari", nil)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		p = fleet.PeerStatus{}
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		return len(p.Ways) == 4 && p.Known() && p.Ways[1].Tried > 0 && p.Ways[3].State == fleet.WaySpare &&
			p.Ways[1].Why == bothVary && p.Ways[2].TxBytes > 0 && p.Ways[2].RxBytes > 0 // which hub carried what
	})
	if p.Path != fleet.PathRelayed || p.Why == "" {
		t.Errorf("%+v, want a relay, and why", p)
	}
	if got, want := p.Ways[0].Why, "bianco has none"; got != want {
		t.Errorf("no direct IPv6 because %q, want %q", got, want)
	}
	if p.Ways[2].State != fleet.WayUsed || p.Ways[2].Via != p.Via {
		t.Errorf("ways %+v, want the one by %s in use", p.Ways, p.Via)
	}
	if n, m := bianco.logged("msg=path peer=ari "), bianco.logged("path=relayed"); n == 0 || m == 0 {
		t.Error("bianco's log has no line for its path to ari")
	}
	via := hub1
	if p.Via == "hub2" {
		via = hub2
	}
	s, err := via.status("")
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(s.Peers, func(p fleet.PeerStatus) bool { return p.Name == "ari" }); s.Peers[i].RelayedTo == 0 {
		t.Errorf("%s says that it relayed nothing to ari", via.name)
	}
	text := w.scrape("bianco", via)
	for _, want := range []string{"200 OK", `moggy_peer_path{peer="bianco",path="direct-v4",via=""} 1`, "moggy_relayed_to_bytes_total{peer=\"ari\"} "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the metrics of %s:\n%s", want, via.name, text)
		}
	}
	// A stranger who knows the address, and routes it to the machine's outer one.
	w.Sh("inet", fmt.Sprintf("ip route add %s via %s", via.node.V4, via.node.Public[0].Addr()))
	if text := w.scrape("inet", via); strings.Contains(text, "HTTP") || strings.Contains(text, "moggy") {
		t.Errorf("a stranger is answered:\n%s", text)
	}
}
