package plan

import "github.com/moggyfleet/moggy/internal/fleet"

// DocumentVersion is the format of Document this release writes.
const DocumentVersion = 1

// Document is the plan as `moggy plan --json` prints it. Within a version
// names are only added. No secret is in it: a secret file shows its path alone.
type Document struct {
	Version    int        `json:"version"`
	Fleet      fleet.Name `json:"fleet"`
	Generation int        `json:"generation"` // as it stands
	Next       int        `json:"next"`       // the number new generations take
	Changes    bool       `json:"changes"`
	Nodes      []NodePlan `json:"nodes"`
	Waves      []Wave     `json:"waves"`
	Report
}

// Document returns the plan as a document.
func (p *Plan) Document() Document {
	return Document{DocumentVersion, p.Fleet, p.Base, p.Next, p.Changes(), p.Nodes, p.Waves, p.Failures}
}
