// Package certs renders what a node needs to have certificates of the fleet's own,
// always fresh: who is in the fleet by which authority, and the unit that renews.
// It signs nothing; that is package internal/certs' on the node.
package certs

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/netip"

	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// Unit is the daemon's.
	Unit = "moggy-certs.service"
	// ConfigPath is the file that it reads.
	ConfigPath = "/etc/moggy/certs.json"
	// Port is the TCP port, on the mesh, at which servers sign for the others: the
	// one before Nomad's (4646 to 4648).
	Port = 4645
	// NomadPair is the certificate and key that Nomad's agent and its command line
	// use, one PEM file.
	NomadPair = "/var/lib/moggy-certs/nomad.pem"
)

//go:embed moggy-certs.service
var unitFile []byte

// Config is /etc/moggy/certs.json, the same on every node: one finds itself in it
// by its own authority.
type Config struct {
	Version int        `json:"version"` // 1
	Fleet   fleet.Name `json:"fleet"`
	Members []Member   `json:"members"` // those whose authority is known, sorted by name
}

// Member is one node.
type Member struct {
	Name   fleet.NodeName `json:"name"`
	V4     netip.Addr     `json:"v4"`
	V6     netip.Addr     `json:"v6"`
	Server bool           `json:"server,omitempty"` // it signs what Nomad's agents need, for all members
	CA     []byte         `json:"ca"`               // its authority's certificate, DER
}

// Self returns the member whose authority has that certificate.
func (c *Config) Self(ca []byte) (Member, bool) {
	for _, m := range c.Members {
		if bytes.Equal(m.CA, ca) {
			return m, true
		}
	}
	return Member{}, false
}

// NewConfig is the fleet's.
func NewConfig(f *fleet.Fleet, l *fleet.Lock) Config {
	roles := f.Roles()
	c := Config{Version: 1, Fleet: f.Name, Members: []Member{}}
	for _, n := range l.Nodes {
		role, listed := roles[n.Name]
		if !listed || len(n.CA) == 0 {
			continue
		}
		c.Members = append(c.Members, Member{Name: n.Name, V4: n.V4, V6: n.V6, Server: role.Server, CA: n.CA})
	}
	return c
}

// ConfigFile is c as a managed file, one member a line.
func ConfigFile(c Config) fleet.File {
	members := c.Members
	c.Members = nil
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(mustJSON(c), []byte("null}")))
	b.WriteByte('[')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(mustJSON(m))
	}
	b.WriteString("\n]}\n")
	return fleet.NewFile(ConfigPath, 0o644, b.Bytes())
}

// Part is what a node needs; config is the same for all, rendered once.
func Part(config fleet.File) fleet.Part {
	return fleet.Part{
		Engine: "certs",
		Files:  []fleet.File{config, fleet.NewFile("/etc/systemd/system/"+Unit, 0o644, unitFile)},
		Units:  []fleet.Unit{{Name: Unit, RestartOn: []string{ConfigPath, agent.BinaryPath}}},
	}
}

// mustJSON marshals a value of our own types, none of which can fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
