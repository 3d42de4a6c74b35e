package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
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
		c := a.bind.Counters(id)
		p := fleet.PeerStatus{Name: n.Name, Path: fleet.PathNone, RxBytes: c.RxBytes, TxBytes: c.TxBytes}
		if v, ok := a.engine.View(id); ok && v.Reachable() {
			p.Path = v.Route.Kind()
			p.Via = a.nodes[v.Route.Hub].Name
			p.Endpoint = a.bind.Underlay(id)
			p.RTTMicro = v.Current().RTT.Microseconds()
			p.SinceSec = int64(now.Sub(v.Since).Seconds())
		}
		s.Peers = append(s.Peers, p)
	}
	slices.SortFunc(s.Peers, func(a, b fleet.PeerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return s
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

// getStatus answers GET /status. With ?probe=1 every peer is tried first, for
// at most probeFor: what is idle is not known otherwise.
func (a *Agent) getStatus(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("probe") != "" {
		a.probeAll(r.Context())
	}
	writeJSON(w, http.StatusOK, a.Status())
}

const probeFor = time.Second

// probeAll wakes every peer, and waits until each has answered or time is up.
func (a *Agent) probeAll(ctx context.Context) {
	begin := time.Now()
	a.mu.Lock()
	for id := range a.nodes {
		a.engine.Traffic(begin, id, path.Traffic{Tx: begin})
	}
	a.mu.Unlock()
	a.poke()
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
			if a.provenSince(begin) {
				tick.Stop()
				return
			}
		}
	}
}

func (a *Agent) provenSince(t time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.nodes {
		if v, ok := a.engine.View(id); ok && v.Current().LastEcho.Before(t) {
			return false
		}
	}
	return true
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // an error means that nobody listens any more
}
