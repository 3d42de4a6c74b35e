package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// Status is how things stand.
func (a *Agent) Status() fleet.MeshStatus {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	self, _ := a.split(a.conf)
	s := fleet.MeshStatus{
		Version: 1, Self: self.Name, Key: a.key.Public(), Agent: a.opt.Version,
		Joined: a.invites.joined(),
	}
	for id, n := range a.nodes {
		if a.silentLocked(id) {
			continue
		}
		c := a.bind.Counters(id)
		p := fleet.PeerStatus{Name: n.Name, Path: fleet.PathNone, RxBytes: c.RxBytes, TxBytes: c.TxBytes}
		p.RelayedFrom, p.RelayedTo = a.relay.Relayed(id)
		if v, ok := a.engine.View(now, id); ok && v.Reachable() {
			cur := v.Current()
			p.Path = v.Route.Kind()
			p.Via = a.nodes[v.Route.Hub].Name
			p.Endpoint = a.bind.Underlay(id)
			p.RTTMicro, p.Loss, p.HeardMs = cur.RTT.Microseconds(), cur.Loss, heardMs(now, cur)
			p.SinceSec, p.Why = int64(now.Sub(v.Since).Seconds()), v.Why
		}
		s.Peers = append(s.Peers, p)
	}
	slices.SortFunc(s.Peers, func(a, b fleet.PeerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// heardMs is how long ago a route answered; 0 for never, which no RTT says too.
func heardMs(now time.Time, r path.RouteView) int64 {
	if r.LastEcho.IsZero() {
		return 0
	}
	return max(now.Sub(r.LastEcho).Milliseconds(), 0)
}

// server is the agent's HTTP on a unix socket.
type server struct {
	http *http.Server
	l    net.Listener
}

// listen opens the socket for root alone. A socket left behind by an agent that
// was killed is replaced.
func (a *Agent) listen() (*server, error) {
	socket := a.opt.SocketPath
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("status socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", a.getStatus)
	mux.HandleFunc("GET /paths", a.getPaths)
	mux.HandleFunc("GET /ways/{peer}", a.getWays)
	mux.HandleFunc("POST /key", a.postKey)
	mux.HandleFunc("GET /invitations", a.getInvitations)
	mux.HandleFunc("POST /invitations", a.postInvitation)
	return &server{&http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      10 * time.Second,
	}, l}, nil
}

func (s *server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("status socket: %w", err)
	}
	return ctx.Err()
}

// getStatus answers GET /status. With ?probe=1 the peers are tried first, for at
// most probeFor: what is idle is not known otherwise.
func (a *Agent) getStatus(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("probe") != "" {
		a.probe(r.Context(), a.worthProbing())
	}
	writeJSON(w, a.Status())
}

// getWays answers GET /ways/{peer}: all ways to one peer, probed first.
func (a *Agent) getWays(w http.ResponseWriter, r *http.Request) {
	a.probe(r.Context(), a.idOf(fleet.NodeName(r.PathValue("peer"))))
	for _, p := range a.Status().Peers {
		if string(p.Name) == r.PathValue("peer") {
			p.Ways = a.ways(time.Now(), p.Name)
			writeJSON(w, p)
			return
		}
	}
	http.Error(w, "no such peer", http.StatusNotFound)
}

// Route is one way to a peer, as GET /paths tells it.
type Route struct {
	Kind     fleet.PathKind `json:"kind"`
	Via      fleet.NodeName `json:"via,omitempty"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"`
	Used     bool           `json:"used,omitempty"`
	RTTMicro int64          `json:"rtt_us,omitempty"`  // the best of the last; 0: never answered
	EchoMs   int64          `json:"echo_ms,omitempty"` // since the last answer
	Loss     float64        `json:"loss,omitempty"`    // 0 to 1, of the last probes
	Misses   int            `json:"misses,omitempty"`  // in a row
	HeldMs   int64          `json:"held_ms,omitempty"` // not returned to for so long
}

// Routes are all ways to one peer.
type Routes struct {
	Peer   fleet.NodeName `json:"peer"`
	Awake  bool           `json:"awake"` // there was traffic lately, so they are probed
	Routes []Route        `json:"routes"`
}

// getPaths answers GET /paths: why each peer is reached as it is.
func (a *Agent) getPaths(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	a.mu.Lock()
	out := make([]Routes, 0, len(a.nodes))
	for id, n := range a.nodes {
		if a.silentLocked(id) {
			continue
		}
		v, _ := a.engine.View(now, id)
		r := Routes{Peer: n.Name, Awake: v.Awake}
		for _, t := range v.Routes {
			route := Route{
				Kind: t.Route.Kind(), Via: a.nodes[t.Route.Hub].Name, Endpoint: t.Route.Addr, Used: t.Route == v.Route,
				RTTMicro: t.RTT.Microseconds(), Loss: t.Loss, Misses: t.Misses,
				HeldMs: max(t.Held.Sub(now).Milliseconds(), 0),
			}
			if !t.LastEcho.IsZero() {
				route.EchoMs = now.Sub(t.LastEcho).Milliseconds()
			}
			r.Routes = append(r.Routes, route)
		}
		out = append(out, r)
	}
	a.mu.Unlock()
	slices.SortFunc(out, func(a, b Routes) int { return cmp.Compare(a.Peer, b.Peer) })
	writeJSON(w, out)
}

// postKey answers POST /key, whose body is a private key: only root can say it.
func (a *Agent) postKey(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err == nil {
		err = a.Take(text)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

const (
	probeFor = time.Second
	// probeMost is how many peers a question wakes: in a fleet of a thousand
	// that asks every node, a million pairs would talk else.
	probeMost = 64
)

// worthProbing are the peers to try before saying how things stand: all of a
// small fleet, and of a large one those that there is traffic with.
func (a *Agent) worthProbing() (ids []wire.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.nodes {
		if (len(a.nodes) <= probeMost || a.engine.IsAwake(id)) && !a.silentLocked(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// idOf is the peer of that name; none if there is no such.
func (a *Agent) idOf(name fleet.NodeName) (ids []wire.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.nodes {
		if n.Name == name && !a.silentLocked(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// probe wakes peers, and waits until each has answered or time is up.
func (a *Agent) probe(ctx context.Context, ids []wire.ID) {
	begin := time.Now()
	a.mu.Lock()
	for _, id := range ids {
		a.engine.Traffic(begin, id, path.Traffic{Tx: begin})
	}
	a.mu.Unlock()
	a.poke()
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(ids) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.mu.Lock()
			ids = slices.DeleteFunc(ids, func(id wire.ID) bool { return a.engine.Proven(id, begin) })
			a.mu.Unlock()
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // an error means that nobody listens any more
}
