// Package image brings containers' images to this machine, by Docker, before
// anything that runs is touched. Running containers is systemd's business.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Docker is the machine's.
type Docker struct {
	Run command.Runner
	// Patience is how long a daemon that was just installed may take to answer; 0
	// means a minute.
	Patience time.Duration
}

// every is how often the daemon is asked whether it is there.
const every = 500 * time.Millisecond

// Pull brings an image, or finds it there: what has a tag is asked for anew, since
// tags move. Where the registry does not answer, an image that is there is as
// good.
func (d Docker) Pull(ctx context.Context, image string) error {
	if err := d.await(ctx); err != nil {
		return err
	}
	_, err := d.Run(ctx, nil, "docker", "pull", "--quiet", image)
	if err == nil || ctx.Err() != nil {
		return err
	}
	said := err.Error()
	unknown := has(said, "not found", "manifest unknown", "repository does not exist", "name unknown", "name invalid")
	if !unknown {
		if _, there := d.Run(ctx, nil, "docker", "image", "inspect", "--format", "{{.Id}}", image); there == nil {
			return nil
		}
	}
	err = fmt.Errorf("image %s: %w", image, err)
	switch {
	case unknown:
		return hint.Wrap(err, "is the name right, and was it pushed? on the node: docker pull %s", image)
	case has(said, "unauthorized", "denied", "no basic auth"):
		registry, _, _ := strings.Cut(image, "/")
		return hint.Wrap(err, "the registry lets nobody in without a password: on the node, as root: docker login %s", registry)
	case has(said, "no space left"):
		return hint.Wrap(err, "make room on the node: docker image prune")
	}
	return hint.Wrap(err, "the node does not reach the registry; on the node: docker pull %s", image)
}

func has(said string, any ...string) bool {
	for _, words := range any {
		if strings.Contains(strings.ToLower(said), words) {
			return true
		}
	}
	return false
}

// await waits for the daemon.
func (d Docker) await(ctx context.Context) error {
	patience := d.Patience
	if patience == 0 {
		patience = time.Minute
	}
	deadline, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		_, err := d.Run(deadline, nil, "docker", "version", "--format", "{{.Server.Version}}")
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return hint.New("docker is not on this machine", "services with an image need it; moggy apply installs it from the distribution")
		}
		select {
		case <-again.C:
			continue
		case <-deadline.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return hint.Wrap(fmt.Errorf("docker does not answer: %w", err), "on the node: systemctl status docker")
	}
}
