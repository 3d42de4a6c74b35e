// Package join makes a machine that nobody can reach from outside a node of the
// fleet: it looks whether the machine can be one, takes up a token at the hubs,
// and puts a first generation in force, with the mesh and nothing else. The
// next apply finds it there like any other node.
//
// What a machine and the hubs say to each other is package mesh's, how
// generations are kept is package node's.
package join

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/mesh"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/token"
)

// generation is the number of the one that a join puts in force. An apply's
// are higher: a hub that lets somebody in has had one.
const generation = 1

// reachFor is how long the mesh may take to find a hub that has just answered.
const reachFor = 20 * time.Second

// Machine is the one that joins.
type Machine struct {
	Root       string // "/", or another directory in tests
	Executable string // our own binary
	Systemd    node.Systemd
	Run        node.Runner
	Version    string
	By         string // who asks, for the lock

	// Ask puts a question to the owner: may it be installed?
	Ask func(question string) (bool, error)
	// Say tells the owner what is being done.
	Say func(text string)
	// Knock is mesh.Knock, Enter is mesh.Join.
	Knock func(ctx context.Context, t token.Token, key fleet.Key) ([]mesh.Told, error)
	Enter func(ctx context.Context, t token.Token, key fleet.Key, hostKey [wire.HostKeySize]byte) ([]mesh.Told, error)
}

// Result is what a join led to.
type Result struct {
	Told  []mesh.Told
	Peers []fleet.PeerStatus // as the agent reaches them
}

// Join takes up the token:
//
//	fit ── knock ── ssh server ── key ── enter ── settle ── reach
//	└── nothing is written ──┘    └ kept unless the hubs refuse ┘
//
// It can be interrupted anywhere, and the same token be used again on this
// machine: a key that a hub may have been told of is kept.
func (m Machine) Join(ctx context.Context, t token.Token) (Result, error) {
	n := node.New(node.Options{
		Root: m.Root, Systemd: m.Systemd, Run: m.Run, Now: time.Now, Version: m.Version, By: m.By,
	})
	if err := m.fit(ctx, n, t); err != nil {
		return Result{}, err
	}
	if err := m.knock(ctx, n, t); err != nil {
		return Result{}, err
	}
	hostKey, err := m.sshd(ctx, n)
	if err != nil {
		return Result{}, err
	}
	fresh := m.absent(node.Dir)
	var r Result
	h, err := n.Lock(ctx, "join")
	if err != nil {
		return r, err
	}
	r.Told, err = m.enter(ctx, h, t, hostKey)
	if err == nil {
		err = m.settle(ctx, h, t)
		if err != nil {
			err = hint.Wrap(err, "the hubs let this machine in: put it right, and use the same token again")
		}
	}
	if fresh && m.absent(node.MeshKeyPath) { // refused after all
		err = errors.Join(err, os.RemoveAll(m.real(node.Dir)))
	}
	if err := errors.Join(err, h.Release()); err != nil {
		return r, err
	}
	r.Peers, err = m.reach(ctx, n)
	return r, err
}

func (m Machine) real(path string) string { return filepath.Join(m.Root, path) }

func (m Machine) absent(path string) bool {
	_, err := os.Lstat(m.real(path))
	return errors.Is(err, fs.ErrNotExist)
}

// knock asks the hubs whether they would let this machine in, before there is
// anything to clean up. A machine that has no key yet uses one for the question
// alone.
func (m Machine) knock(ctx context.Context, n *node.Node, t token.Token) error {
	key, err := n.MeshKey()
	if errors.Is(err, fs.ErrNotExist) {
		var once wire.PrivateKey
		once, err = wire.NewPrivateKey(rand.Reader)
		key = once.Public()
	}
	if err != nil {
		return err
	}
	m.Say(fmt.Sprintf("asking %s to let this machine in as %s", hubs(len(t.Hubs)), t.Node))
	_, err = m.Knock(ctx, t, key)
	return err
}

func hubs(n int) string {
	if n == 1 {
		return "a hub"
	}
	return fmt.Sprintf("%d hubs", n)
}

// enter makes the machine's key, which never leaves it, and tells the hubs. One
// that is refused goes again; one that a hub may have taken down stays.
func (m Machine) enter(ctx context.Context, h *node.Held, t token.Token, hostKey [wire.HostKeySize]byte) ([]mesh.Told, error) {
	_, err := h.MeshKey()
	made := errors.Is(err, fs.ErrNotExist)
	key, err := h.Init()
	if err != nil {
		return nil, err
	}
	told, err := m.Enter(ctx, t, key, hostKey)
	switch {
	case errors.Is(err, mesh.ErrNoAnswer):
		err = hint.New("the hubs fell silent while they let this machine in", "use the same token again on this machine: one of them may have agreed")
	case err != nil && made:
		err = errors.Join(err, os.Remove(m.real(node.MeshKeyPath)))
	}
	return told, err
}

// settle puts the first generation in force: the mesh, as far as the token
// knows it.
func (m Machine) settle(ctx context.Context, h *node.Held, t token.Token) error {
	key, err := h.MeshKey()
	if err != nil {
		return err
	}
	binary, err := m.binary(h)
	if err != nil {
		return err
	}
	part := agent.Part(agent.ConfigFile(firstConfig(t, key)), binary)
	part.Packages = nil // the apply that follows brings them: the mesh needs none
	manifest, files, err := plan.Assemble(t.Fleet, t.Node, []fleet.Part{part})
	if err != nil {
		return err
	}
	manifest.Generation = generation
	for _, f := range files {
		if f.Content == nil {
			continue
		}
		if err := h.PutBlob(f.Digest, f.Mode, bytes.NewReader(f.Content)); err != nil {
			return err
		}
	}
	staged, err := h.Stage(manifest)
	if err != nil {
		return err
	}
	m.Say("starting the mesh")
	if _, err := h.Try(ctx, node.Target{Generation: generation, Digest: staged.Digest}, func(protocol.Event) {}); err != nil {
		return err
	}
	_, err = h.Confirm(generation)
	return err
}

// firstConfig is the mesh of this machine and the hubs.
func firstConfig(t token.Token, key fleet.Key) fleet.AgentConfig {
	c := fleet.AgentConfig{
		Version: 1, Fleet: t.Fleet, Port: t.Port, MTU: t.MTU, V4: t.Mesh.V4, V6: t.Mesh.V6,
		Nodes: append(slices.Clone(t.Hubs), fleet.MeshNode{Name: t.Node, Site: t.Site, Key: key, V4: t.V4, V6: t.V6}),
	}
	slices.SortFunc(c.Nodes, func(a, b fleet.MeshNode) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return c
}

// binary puts our own executable into the store, for the generation.
func (m Machine) binary(h *node.Held) (fleet.File, error) {
	f, err := os.Open(m.Executable)
	if err != nil {
		return fleet.File{}, err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fleet.File{}, fmt.Errorf("%s: %w", m.Executable, err)
	}
	file := fleet.File{Path: agent.BinaryPath, Mode: 0o755, Digest: fleet.Digest(hex.EncodeToString(sum.Sum(nil)))}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fleet.File{}, fmt.Errorf("%s: %w", m.Executable, err)
	}
	return file, h.PutBlob(file.Digest, file.Mode, f)
}

// reach waits until the mesh reaches a hub.
func (m Machine) reach(ctx context.Context, n *node.Node) ([]fleet.PeerStatus, error) {
	m.Say("waiting for a hub over the mesh")
	ctx, cancel := context.WithTimeout(ctx, reachFor)
	defer cancel()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		if o, err := n.Observe(ctx, node.Look{}); err == nil && o.Mesh != nil {
			reached := slices.DeleteFunc(o.Mesh.Peers, func(p fleet.PeerStatus) bool { return p.RTTMicro == 0 })
			if len(reached) > 0 {
				return reached, nil
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, hint.New("this machine has joined, but reaches no hub over the mesh yet",
				"it keeps trying; what it says: journalctl -u %s", agent.Unit)
		}
	}
}
