package deploy

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/token"
)

// maxTokenHubs bounds how many hubs a token names: enough that some are up,
// few enough that it can be carried by hand.
const maxTokenHubs = 5

// Invite makes a token for a node that joins from its own keyboard, and tells
// the hubs. Hubs that could not be told are in the Failed; the error says that
// none could, or that the node needs no token. With replace, a node that is in
// the fleet is invited anew: the machine that has its key stays the node until
// another one has joined.
func (d *Deployment) Invite(ctx context.Context, name fleet.NodeName, replace bool, valid time.Duration, now time.Time) (token.Token, Failed, error) {
	n, ok := d.Fleet.Node(name)
	if !ok {
		return token.Token{}, nil, hint.New(fmt.Sprintf("there is no node %s in the file", name), "add a line for it first: node %q { site = ... }", name)
	}
	// The addresses that the token tells are the node's from now on.
	if err := d.learn(func(*fleet.Lock) {}); err != nil {
		return token.Token{}, nil, err
	}
	lock := d.Lock()
	entry := lock.Node(name)
	if !entry.MeshKey.IsZero() && !replace {
		return token.Token{}, nil, hint.New(fmt.Sprintf("%s is in the fleet already", name),
			"moggy status shows it; a machine that was installed anew takes its place back: moggy token %s --replace", name)
	}
	hubs := slices.DeleteFunc(agent.Config(d.Fleet, lock).Nodes, func(m fleet.MeshNode) bool {
		return m.Name == name || !m.Hub || len(m.Public) == 0 || lock.Node(m.Name).Generation == 0
	})
	if len(hubs) == 0 {
		return token.Token{}, nil, hint.New("no hub is up that could let it in", "moggy apply sets the hubs up")
	}
	secret, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return token.Token{}, nil, err
	}
	i := fleet.Invitation{
		Node: name, Key: fleet.Key(secret.PublicKey().Bytes()), Expires: now.Add(valid).Unix(),
		V4: entry.V4, V6: entry.V6, Site: n.Site,
	}
	names := make([]fleet.NodeName, len(hubs))
	for j, h := range hubs {
		names[j] = h.Name
	}
	failed := d.each(ctx, names, func(ctx context.Context, hub fleet.NodeName) error {
		ctx, stop := context.WithTimeoutCause(ctx, observeTimeout, errors.New("no answer"))
		defer stop()
		d.Progress.Step(string(hub), "telling it of "+string(name))
		if err := d.target(hub).invite(ctx, i); err != nil {
			return err
		}
		d.Progress.Done(string(hub), "expects "+string(name))
		return nil
	})
	hubs = slices.DeleteFunc(hubs, func(m fleet.MeshNode) bool { return failed[m.Name] != nil })
	if len(hubs) == 0 {
		return token.Token{}, failed, failed
	}
	return token.Token{
		Fleet: d.Fleet.Name, Node: name, Site: n.Site, V4: entry.V4, V6: entry.V6,
		Mesh: lock.Mesh, Port: d.Fleet.Port, MTU: agent.MTU,
		Secret: token.Secret(secret.Bytes()), Expires: i.Expires, Hubs: hubs[:min(len(hubs), maxTokenHubs)],
	}, failed, nil
}
