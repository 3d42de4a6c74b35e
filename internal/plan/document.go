package plan

import (
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
)

// DocumentVersion is the format of Document this release writes.
const DocumentVersion = 1

// Document is the plan as `moggy plan --json` prints it. Within a version
// names are only added. No secret is in it: a secret file shows its path alone.
type Document struct {
	Version    int             `json:"version"`
	Fleet      fleet.Name      `json:"fleet"`
	Generation int             `json:"generation"` // as it stands
	Next       int             `json:"next"`       // the number new generations take
	Changes    bool            `json:"changes"`
	Nodes      []NodePlan      `json:"nodes"`
	Order      []rollout.Group `json:"order,omitempty"` // in which a rollout takes the nodes
	Waves      []rollout.Wave  `json:"waves"`           // the same, step by step
	Rotations  []Rotating      `json:"rotations,omitempty"`
	Names      []NameChange    `json:"public_dns,omitempty"` // what it lacks
	Report
}

// Document returns the plan as a document.
func (p *Plan) Document() Document {
	return Document{DocumentVersion, p.Fleet, p.Base, p.Next, p.Changes(), p.Nodes, p.Order, p.Waves, p.Rotations, p.Names, p.Failures}
}
