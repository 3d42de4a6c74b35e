package examine

import (
	"context"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// peers has the agent probe every peer, then asks which answered. Of a peer
// that was idle nothing would be known otherwise.
func (x Examiner) peers(ctx context.Context) (func(*fleet.Examination), error) {
	mesh := agent.Socket(x.real(fleet.AgentSocket))
	began := time.Now()
	var status fleet.MeshStatus
	if err := mesh.Get(ctx, "/status?probe=1", &status); err != nil {
		return nil, err
	}
	var paths []struct {
		Peer   fleet.NodeName `json:"peer"`
		Routes []struct {
			RTT  int64 `json:"rtt_us"`
			Echo int64 `json:"echo_ms"`
		} `json:"routes"`
	}
	if err := mesh.Get(ctx, "/paths", &paths); err != nil {
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
