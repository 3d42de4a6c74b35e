package examine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// maxAgentAnswer bounds, in bytes, what the agent may say.
const maxAgentAnswer = 8 << 20

// peers has the agent probe every peer, then asks which answered. Of a peer
// that was idle nothing would be known otherwise.
func (x Examiner) peers(ctx context.Context) (func(*fleet.Examination), error) {
	began := time.Now()
	var status fleet.MeshStatus
	if err := x.agent(ctx, "/status?probe=1", &status); err != nil {
		return nil, err
	}
	var paths []struct {
		Peer   fleet.NodeName `json:"peer"`
		Routes []struct {
			RTT  int64 `json:"rtt_us"`
			Echo int64 `json:"echo_ms"`
		} `json:"routes"`
	}
	if err := x.agent(ctx, "/paths", &paths); err != nil {
		return nil, err
	}
	echoes := make([]fleet.Echo, 0, len(paths))
	for _, p := range paths {
		echo := fleet.Echo{Peer: p.Peer, Ms: -1}
		for _, r := range p.Routes {
			if r.RTT > 0 && (echo.Ms < 0 || r.Echo < echo.Ms) {
				echo.Ms = r.Echo
			}
		}
		if echo.Ms > time.Since(began).Milliseconds() {
			echo.Ms = -1 // it answered before it was asked, and not since
		}
		echoes = append(echoes, echo)
	}
	return func(e *fleet.Examination) { e.Echoes = echoes }, nil
}

// agent asks the mesh's agent over its socket, which only root may.
func (x Examiner) agent(ctx context.Context, path string, v any) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", x.real(fleet.AgentSocket))
		},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAgentAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("agent: %w", err)
	case len(b) > maxAgentAnswer:
		return errors.New("agent: its answer is too long")
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("agent: %s", resp.Status)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}
