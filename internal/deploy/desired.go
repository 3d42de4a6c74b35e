package deploy

import (
	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/engine/certs"
	"github.com/moggyfleet/moggy/internal/engine/firewall"
	"github.com/moggyfleet/moggy/internal/engine/ingress"
	"github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/engine/operators"
	"github.com/moggyfleet/moggy/internal/engine/services"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// nomadEngine is what Nomad goes by among the engines.
const nomadEngine = "nomad"

// Parts asks every engine what it wants of each node. What is the same on all
// of them is rendered once.
func Parts(f *fleet.Fleet, l *fleet.Lock, b cargo.Binaries, p cargo.Programs, e map[string]cargo.Binaries, s cargo.Sites) map[fleet.NodeName][]fleet.Part {
	mesh := agent.ConfigFile(agent.Config(f, l))
	trust, cluster := certs.ConfigFile(certs.NewConfig(f, l)), nomad.New(f, l, e[nomadEngine], p)
	access, instances, https := firewall.New(f, l), services.New(f, l, p), ingress.New(f, l, s)
	parts := make(map[fleet.NodeName][]fleet.Part, len(f.Nodes))
	for _, n := range f.Nodes {
		parts[n.Name] = []fleet.Part{
			agent.Part(mesh, b.File(l.Node(n.Name).Arch)),
			operators.Part(f, n),
		}
		if f.Scheduler == fleet.Nomad {
			parts[n.Name] = append(parts[n.Name], certs.Part(trust), cluster.Part(n))
		}
		if part, closed := access.Part(n, agent.BinaryPath); closed {
			parts[n.Name] = append(parts[n.Name], part)
		}
		if part, some := instances.Part(n.Name); some {
			parts[n.Name] = append(parts[n.Name], part)
		}
		if part, some := https.Part(n.Name, agent.BinaryPath); some {
			parts[n.Name] = append(parts[n.Name], part)
		}
	}
	return parts
}
