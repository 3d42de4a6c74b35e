package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Observer asks a node how it is: package deploy's Deployment.
type Observer func(ctx context.Context, node fleet.NodeName) (*fleet.Observed, error)

// restartPatience is how long an instance may take to be well again: what an
// activation gives it, and its stop.
const restartPatience = time.Minute

// Restart restarts the instances of a service one after the other, each once the
// one before is well. The first that is not ends it: the others go on running.
func Restart(ctx context.Context, run Runner, observe Observer, s Subject, tell func(node fleet.NodeName, text string)) error {
	for _, n := range s.Nodes {
		tell(n, "restarting")
		began := time.Now()
		if err := run.Run(ctx, n, ssh.Command{Args: []string{"systemctl", "restart", "--", s.Service.Unit()}}); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		if err := well(ctx, observe, s, n); err != nil {
			return err
		}
		tell(n, fmt.Sprintf("well after %.1f s", time.Since(began).Seconds()))
	}
	return nil
}

// Inside is the command, run on a node as root, that runs another inside the
// container of a service's instance there.
func Inside(s fleet.ServiceName, terminal bool, command []string) []string {
	out := []string{"docker", "exec", "--interactive"}
	if terminal {
		out = append(out, "--tty")
	}
	return append(append(out, "moggy-"+string(s)), command...)
}

// well waits until the service's instance on a node is.
func well(ctx context.Context, observe Observer, s Subject, n fleet.NodeName) error {
	ctx, cancel := context.WithTimeout(ctx, restartPatience)
	defer cancel()
	every := time.NewTicker(500 * time.Millisecond)
	defer every.Stop()
	why := "no answer"
	for {
		o, err := observe(ctx, n)
		switch {
		case err != nil && ctx.Err() == nil:
			why = err.Error()
		case err == nil:
			if why = unwell(o, s.Service.Unit()); why == "" {
				return nil
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return hint.New(fmt.Sprintf("%s: service %s is not well: %s", n, s.Service, why), "moggy logs %s --node %s", s.Service, n)
		}
	}
}

// unwell says why a unit is not well; "" if it is.
func unwell(o *fleet.Observed, unit string) string {
	for _, u := range o.Units {
		if u.Name != unit {
			continue
		}
		if u.Active != "active" {
			return u.Active + " " + u.Sub
		}
		return o.Failing[unit]
	}
	return "its unit is not there"
}
