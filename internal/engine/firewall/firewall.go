// Package firewall renders who may reach a node over the mesh: the rules of our
// own nftables table, and the unit that keeps them in force. It loads nothing;
// that is what internal/firewall does on the node. A node that no allow leads to
// and that runs no service needs neither.
package firewall

import (
	_ "embed"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// Unit is the systemd unit that keeps the rules in force.
	Unit = "moggy-firewall.service"
	// UnitPath is where its unit file is linked.
	UnitPath = "/etc/systemd/system/" + Unit
	// RulesPath is what nft(8) is given.
	RulesPath = "/etc/moggy/firewall.nft"
	// Table is our own, of family inet: the only one we ever touch.
	Table = "moggy"
)

//go:embed moggy-firewall.service
var unitFile []byte

// Part is what the node needs to let in only whom the fleet allows; false where
// all may reach it. The unit is reloaded, never restarted, when its rules or
// the binary at binaryPath (which is the agent's part) change: a restart would
// leave the node without rules for a moment.
func (r *Rules) Part(n fleet.Node, binaryPath string) (fleet.Part, bool) {
	rules, closed := r.render(n)
	if !closed {
		return fleet.Part{}, false
	}
	return fleet.Part{
		Engine: "firewall",
		Files: []fleet.File{
			fleet.NewFile(RulesPath, 0o644, rules.text),
			fleet.NewFile(UnitPath, 0o644, unitFile),
		},
		Units:    []fleet.Unit{{Name: Unit, ReloadOn: []string{RulesPath, binaryPath}}},
		Packages: []string{"nftables"},
		Checks: []fleet.Check{{
			Name: "the access rules are in force", Kind: fleet.CheckRun,
			Command: []string{"/bin/sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; exec nft list chain inet " + Table + " " + rules.mark + " >/dev/null"},
		}},
	}, true
}
