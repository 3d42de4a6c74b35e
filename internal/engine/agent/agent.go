// Package agent renders what every node needs to be part of the mesh: the
// agent's configuration, its systemd unit, our binary, and the guard that looks at
// all of it when a machine starts. It does not run the agent; that is package
// mesh.
package agent

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// Unit is the agent's systemd unit.
	Unit = "moggy-agent.service"
	// UnitPath is where its unit file is linked.
	UnitPath = "/etc/systemd/system/" + Unit
	// BinaryPath is where every node has our binary.
	BinaryPath = "/usr/local/bin/moggy"
	// MTU of the mesh's interface: IPv6's minimum (RFC 8200, section 5), which
	// with every header of ours still fits the paths that carriers offer.
	MTU = 1280
)

//go:embed moggy-agent.service
var unitFile []byte

// guardPath is where the guard's unit file is linked.
const guardPath = protocol.SystemdDir + "/" + protocol.GuardUnit

//go:embed moggy-guard.service
var guardFile []byte

// Config is the mesh as every node is told of it: the members whose keys are
// known, and who else may join. It is the same for all.
func Config(f *fleet.Fleet, l *fleet.Lock) fleet.AgentConfig {
	roles := f.Roles()
	cfg := fleet.AgentConfig{
		Version: 1, Fleet: f.Name, Port: f.Port, MTU: MTU,
		V4: l.Mesh.V4, V6: l.Mesh.V6,
		Nodes: []fleet.MeshNode{},
	}
	for _, have := range l.Nodes { // sorted by name
		if have.MeshKey.IsZero() {
			continue
		}
		role, listed := roles[have.Name]
		if !listed {
			continue // left the file: nobody knows it any more
		}
		cfg.Nodes = append(cfg.Nodes, fleet.MeshNode{Name: have.Name, Key: have.MeshKey, Next: have.NextKey, Old: have.OldKey, V4: have.V4, V6: have.V6, Hub: role.Hub})
	}
	members := make(map[fleet.NodeName]*fleet.MeshNode, len(cfg.Nodes))
	for i := range cfg.Nodes {
		members[cfg.Nodes[i].Name] = &cfg.Nodes[i]
	}
	for _, n := range f.Nodes {
		m, ok := members[n.Name]
		if !ok {
			cfg.Awaited = append(cfg.Awaited, n.Name)
			continue
		}
		m.Site = n.Site
		for _, a := range n.Public {
			m.Public = append(m.Public, netip.AddrPortFrom(a, f.Port))
		}
	}
	slices.Sort(cfg.Awaited)
	return cfg
}

// Encode is the configuration as the file holds it: JSON with one member per
// line, so that a diff shows members.
func Encode(cfg fleet.AgentConfig) []byte {
	nodes := cfg.Nodes
	cfg.Nodes = nil
	head := mustJSON(cfg)
	head = bytes.TrimSuffix(head, []byte("null}"))
	var b bytes.Buffer
	b.Write(head)
	b.WriteByte('[')
	for i, n := range nodes {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(mustJSON(n))
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}

// Part is what the agent needs on a node: cfg already encoded (it is the same
// for all nodes, so its caller renders it once) and the binary for the node's
// architecture.
func Part(config fleet.File, binary fleet.File) fleet.Part {
	return fleet.Part{
		Engine: "agent",
		Files: []fleet.File{
			config,
			fleet.NewFile(UnitPath, 0o644, unitFile),
			fleet.NewFile(guardPath, 0o644, guardFile),
			binary,
		},
		Units: []fleet.Unit{{
			Name:      Unit,
			RestartOn: []string{BinaryPath},
			ReloadOn:  []string{fleet.AgentConfigPath},
		}, {
			Name: protocol.GuardUnit,
		}},
		Packages: []string{"wireguard-tools"}, // wg(8), to look at the mesh with the field's own tool
		Checks:   []fleet.Check{{Name: "the mesh reaches a hub", Kind: fleet.CheckMesh}},
	}
}

// ConfigFile is cfg as a managed file.
func ConfigFile(cfg fleet.AgentConfig) fleet.File {
	return fleet.NewFile(fleet.AgentConfigPath, 0o644, Encode(cfg))
}

// mustJSON marshals a value of our own types, none of which can fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
