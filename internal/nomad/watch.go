package nomad

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	engine "github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Instance is one of a service's that runs.
type Instance struct {
	Node fleet.NodeName
	// Well is what Nomad's check says; who routes asks it himself as well.
	Well bool
}

// allocation is what is read of Nomad's list of them.
type allocation struct {
	JobID, NodeName, TaskGroup, ClientStatus, DesiredStatus string
	DeploymentStatus                                        *struct{ Healthy *bool }
}

const (
	// watchWait is how long one question waits for a change.
	watchWait = 30 * time.Second
	// again is how long to wait after an error, doubled up to slowly.
	again  = 500 * time.Millisecond
	slowly = 5 * time.Second
	// maxList bounds an answer, in bytes: some 2 kB for each allocation.
	maxList = 64 << 20
)

// Watch tells, at first and after each change, which instances of moggy's services
// run where, until ctx ends. After an error it asks for the whole list again; while
// nobody answers it tells nothing, so that what was told last stands.
func (l Local) Watch(ctx context.Context, tell func(map[fleet.ServiceName][]Instance)) error {
	index, pause := "", again
	for ctx.Err() == nil {
		transport, err := l.transport()
		if err == nil {
			client := &http.Client{Transport: transport}
			for err == nil && ctx.Err() == nil {
				var now map[fleet.ServiceName][]Instance
				var next string
				if now, next, err = l.list(ctx, client, index); err == nil {
					pause = again
					if next != index {
						tell(now)
					}
					index = next
				}
			}
			transport.CloseIdleConnections()
		}
		index = ""
		timer := time.NewTimer(pause)
		pause = min(2*pause, slowly)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	return nil
}

// list asks for all allocations, once there is a change since index.
func (l Local) list(ctx context.Context, c *http.Client, index string) (map[fleet.ServiceName][]Instance, string, error) {
	ctx, stop := context.WithTimeout(ctx, watchWait+watchWait/2) // Nomad adds up to a sixteenth
	defer stop()
	token, err := l.token()
	if err != nil {
		return nil, "", err
	}
	url := fmt.Sprintf("https://%s/v1/allocations?task_states=false&index=%s&wait=%s", l.At, index, watchWait)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("X-Nomad-Token", token)
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("nomad: %s", resp.Status)
	}
	next := resp.Header.Get("X-Nomad-Index")
	if n, err := strconv.ParseUint(next, 10, 64); err != nil || n == 0 {
		return nil, "", fmt.Errorf("nomad: index %.40q", next)
	}
	out, err := instances(io.LimitReader(resp.Body, maxList))
	return out, next, err
}

// instances reads a list of allocations.
func instances(r io.Reader) (map[fleet.ServiceName][]Instance, error) {
	var all []allocation
	if err := json.NewDecoder(r).Decode(&all); err != nil {
		return nil, fmt.Errorf("nomad: list of allocations: %w", err)
	}
	out := make(map[fleet.ServiceName][]Instance)
	for _, a := range all {
		if a.TaskGroup != engine.GroupName || a.ClientStatus != "running" || a.DesiredStatus != "run" {
			continue
		}
		s := fleet.ServiceName(a.JobID)
		well := a.DeploymentStatus != nil && a.DeploymentStatus.Healthy != nil && *a.DeploymentStatus.Healthy
		out[s] = append(out[s], Instance{fleet.NodeName(a.NodeName), well})
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b Instance) int { return compare(a.Node, b.Node) })
	}
	return out, nil
}

func compare(a, b fleet.NodeName) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
