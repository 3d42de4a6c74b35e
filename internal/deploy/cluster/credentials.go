// Package cluster gives the nodes of a fleet what they need to trust each other
// beyond the mesh: authorities for certificates, made by each node for itself, and
// the secrets that servers share, which no disk but theirs ever holds. It speaks to
// nodes as `moggy node` answers; how to reach one is its caller's to know.
package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/pki"
)

// Asker runs `moggy node` with args on a node and returns its answer.
type Asker func(ctx context.Context, node fleet.NodeName, stdin io.Reader, args ...string) ([]byte, error)

// Credentials are a fleet's, being completed.
type Credentials struct {
	Fleet *fleet.Fleet
	Lock  *fleet.Lock
	Ask   Asker
	Now   func() time.Time
}

// Lacking are the nodes whose authority is not, or not any more, what the fleet
// needs of it, in the fleet's order.
func (c Credentials) Lacking() []fleet.NodeName {
	var out []fleet.NodeName
	for _, n := range c.Fleet.Nodes {
		have := c.Lock.Node(n.Name)
		if have.MeshKey.IsZero() || !pki.Needed(c.Fleet, n.Name) {
			continue
		}
		if _, err := pki.CheckAuthority(have.CA, pki.Expected(c.Fleet, c.Lock, n.Name), c.Now()); err != nil {
			out = append(out, n.Name)
		}
	}
	return out
}

// Authority has a node make, or bind anew, its authority, and returns the
// certificate once it is as it shall be.
func (c Credentials) Authority(ctx context.Context, name fleet.NodeName) ([]byte, error) {
	want := pki.Expected(c.Fleet, c.Lock, name)
	doc, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	out, err := c.Ask(ctx, name, bytes.NewReader(doc), "authority")
	if err != nil {
		return nil, err
	}
	answer, err := protocol.Decode[protocol.Authority](out)
	if err != nil {
		return nil, err
	}
	_, err = pki.CheckAuthority(answer.CA, want, c.Now())
	return answer.CA, err
}

// Secrets are those that the servers share: made where none has one, and taken
// from one server to those that lack it.
func (c Credentials) Secrets(ctx context.Context) error {
	servers := Servers(c.Fleet, c.Lock)
	if err := c.share(ctx, servers, nomad.GossipSecret, gossip); err != nil {
		return err
	}
	return c.share(ctx, servers, nomad.TokenSecret, token)
}

// share has every server hold the same secret.
func (c Credentials) share(ctx context.Context, servers []fleet.NodeName, name string, generate func() ([]byte, error)) error {
	have, err := c.holders(ctx, servers, name)
	if err != nil {
		return err
	}
	var content []byte
	var lacking []fleet.NodeName
	var digest fleet.Digest
	for _, s := range servers {
		got, answered := have[s]
		switch {
		case !answered:
		case got == "":
			lacking = append(lacking, s)
		case digest != "" && got != digest:
			return hint.New(fmt.Sprintf("%s and another server have a different secret %q: they are of two clusters", s, name),
				"on the one that shall join the other: systemctl stop moggy-nomad; rm -r %s /var/lib/nomad/server; then moggy apply", nomad.SecretsDir)
		case digest == "":
			digest = got
			if content, err = c.fetch(ctx, s, name); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	switch {
	case len(lacking) == 0:
		return nil
	case content == nil && len(have) < len(servers):
		return hint.New(fmt.Sprintf("the servers' secret %q is not to be had: of %d servers only %d answer, and none of them has it", name, len(servers), len(have)),
			"mend the others first: they may have it")
	case content == nil:
		if content, err = generate(); err != nil {
			return err
		}
	}
	return c.everywhere(lacking, func(s fleet.NodeName) error {
		_, err := c.Ask(ctx, s, bytes.NewReader(content), "secret", "--keep", name)
		return err
	})
}

// holders are the servers that answer, each with the digest of its secret.
func (c Credentials) holders(ctx context.Context, servers []fleet.NodeName, name string) (map[fleet.NodeName]fleet.Digest, error) {
	out := make(map[fleet.NodeName]fleet.Digest, len(servers))
	var mu sync.Mutex
	err := c.everywhere(servers, func(s fleet.NodeName) error {
		b, err := c.Ask(ctx, s, nil, "secret", name)
		if err != nil {
			return err
		}
		answer, err := protocol.Decode[protocol.Secret](b)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out[s] = answer.Digest
		return nil
	})
	if len(out) > 0 {
		return out, nil // who does not answer is judged by what is needed of it
	}
	return nil, err
}

func (c Credentials) fetch(ctx context.Context, s fleet.NodeName, name string) ([]byte, error) {
	b, err := c.Ask(ctx, s, nil, "secret", "--show", name)
	if err != nil {
		return nil, err
	}
	answer, err := protocol.Decode[protocol.Secret](b)
	return answer.Content, err
}

// everywhere does work on all side by side; errors are in the nodes' order.
func (c Credentials) everywhere(names []fleet.NodeName, work func(fleet.NodeName) error) error {
	failed := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range slices.Clone(names) {
		wg.Go(func() {
			if err := work(n); err != nil {
				failed[i] = fmt.Errorf("%s: %w", n, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// gossip is a key for serf (32 bytes: AES-256), as Nomad's configuration has it.
func gossip() ([]byte, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "server {\n  encrypt = %q\n}\n", base64.StdEncoding.EncodeToString(key)), nil
}

// token is a secret ID of Nomad's: a UUID (RFC 9562, section 5.4).
func token() ([]byte, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Appendf(nil, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// Servers are the nodes that vote and have been met, in the file's order.
func Servers(f *fleet.Fleet, l *fleet.Lock) []fleet.NodeName {
	var out []fleet.NodeName
	roles := f.Roles()
	for _, n := range f.Nodes {
		if roles[n.Name].Server && !l.Node(n.Name).MeshKey.IsZero() {
			out = append(out, n.Name)
		}
	}
	return out
}

// AtHand refuses to begin where a node's architecture has no build of an engine:
// digest is empty for it.
func AtHand(l *fleet.Lock, engine string, digest func(arch string) fleet.Digest) error {
	var lacking []string
	for _, n := range l.Nodes {
		if n.Arch != "" && digest(n.Arch) == "" && !slices.Contains(lacking, n.Arch) {
			lacking = append(lacking, n.Arch)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return hint.New(fmt.Sprintf("there is no %s for %s at hand", engine, strings.Join(lacking, " and ")),
		"build it from source, once (about 10 minutes): make engines ENGINES=%s", strings.ToLower(engine))
}
