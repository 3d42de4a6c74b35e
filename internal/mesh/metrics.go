package mesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// serveMetrics answers GET /metrics on the node's mesh addresses, over TCP at
// the mesh's own port number, in Prometheus' text format. Only who is on the
// mesh gets an answer: Linux takes packets for these addresses by any interface,
// but to any other source it would answer outside of the mesh. That nothing can
// be served is no reason to stop.
func (a *Agent) serveMetrics(ctx context.Context) error {
	a.mu.Lock()
	conf := a.conf
	self, _ := a.split(conf)
	a.mu.Unlock()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", a.getMetrics)
	server := &http.Server{
		Handler:           membersOnly(conf, mux),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      10 * time.Second,
		MaxHeaderBytes:    8 << 10,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	for _, ip := range []netip.Addr{self.V4, self.V6} {
		l, err := net.Listen("tcp", netip.AddrPortFrom(ip, conf.Port).String())
		if err != nil {
			a.log.Warn("no metrics", fieldError, err)
			continue
		}
		go func() { _ = server.Serve(l) }() // it ends with the server
	}
	<-ctx.Done()
	return ctx.Err()
}

// membersOnly hangs up on everybody whose address is not the mesh's.
func membersOnly(conf fleet.AgentConfig, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		ip := from.Addr().Unmap()
		if err != nil || !conf.V4.Contains(ip) && !conf.V6.Contains(ip) {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

func (a *Agent) getMetrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	writeMetrics(&b, a.Status())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // an error means that nobody listens any more
}

// metric is one family of samples, a sample per peer.
type metric struct {
	name, kind, help string
	value            func(fleet.PeerStatus) (float64, bool)
}

func metrics() []metric {
	count := func(n func(fleet.PeerStatus) uint64) func(fleet.PeerStatus) (float64, bool) {
		return func(p fleet.PeerStatus) (float64, bool) { return float64(n(p)), true }
	}
	return []metric{
		{"moggy_peer_path", "gauge", "How the peer is reached: 1 for the path in use.", func(fleet.PeerStatus) (float64, bool) { return 1, true }},
		{"moggy_peer_rtt_seconds", "gauge", "Round trip by the path in use; absent where nothing is known lately.", func(p fleet.PeerStatus) (float64, bool) { return float64(p.RTTMicro) / 1e6, p.Known() }},
		{"moggy_peer_loss_ratio", "gauge", "Share of the last probes by the path in use that were lost.", func(p fleet.PeerStatus) (float64, bool) { return p.Loss, p.Known() }},
		{"moggy_peer_path_seconds", "gauge", "For how long that path is in use.", func(p fleet.PeerStatus) (float64, bool) { return float64(p.SinceSec), p.Path != fleet.PathNone }},
		{"moggy_peer_received_bytes_total", "counter", "Of the peer's WireGuard messages.", count(func(p fleet.PeerStatus) uint64 { return p.RxBytes })},
		{"moggy_peer_sent_bytes_total", "counter", "Of WireGuard messages to the peer.", count(func(p fleet.PeerStatus) uint64 { return p.TxBytes })},
		{"moggy_relayed_from_bytes_total", "counter", "What this hub relayed for the peer, to others.", count(func(p fleet.PeerStatus) uint64 { return p.RelayedFrom })},
		{"moggy_relayed_to_bytes_total", "counter", "What this hub relayed to the peer, for others.", count(func(p fleet.PeerStatus) uint64 { return p.RelayedTo })},
	}
}

// writeMetrics writes Prometheus' text format, version 0.0.4. Names of nodes
// need no escaping: they are DNS labels.
func writeMetrics(w io.Writer, s fleet.MeshStatus) {
	for _, m := range metrics() {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for _, p := range s.Peers {
			v, ok := m.value(p)
			if !ok {
				continue
			}
			labels := fmt.Sprintf("peer=%q", p.Name)
			if m.name == "moggy_peer_path" {
				labels += fmt.Sprintf(",path=%q,via=%q", p.Path, p.Via)
			}
			fmt.Fprintf(w, "%s{%s} %s\n", m.name, labels, strconv.FormatFloat(v, 'g', -1, 64))
		}
	}
}
