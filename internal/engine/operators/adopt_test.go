package operators

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestAdopt reads back what Part wrote after a hand went over it.
func TestAdopt(t *testing.T) {
	f := &fleet.Fleet{Operators: []fleet.Operator{
		{Name: "nico", Key: "ssh-ed25519 NICO nico@laptop"}, {Name: "bo", Key: "ssh-ed25519 BO bo@desk"},
	}}
	n := fleet.Node{Name: "ari", SSH: fleet.SSH{User: "root"}}
	wrote := string(Part(f, n).Files[0].Content)
	drift := func(content string) fleet.Drift {
		return fleet.Drift{Path: "/etc/moggy/authorized_keys.d/root", Kind: fleet.DriftChanged, Content: content}
	}
	tests := map[string]struct {
		content string
		want    Adoption
	}{
		"nothing changed": {wrote, Adoption{}},
		"one added":       {wrote + "ssh-ed25519 ANA ana@desk\nssh-ed25519 ANA again\n", Adoption{Added: []string{"ssh-ed25519 ANA ana@desk"}}},
		"all replaced":    {"ssh-rsa X x\n", Adoption{Added: []string{"ssh-rsa X x"}, Removed: []string{"bo", "nico"}}},
		"other comment":   {"ssh-ed25519 NICO me\nssh-ed25519 BO\n", Adoption{}},
		"with options":    {wrote + "from=\"10.0.0.1\" ssh-ed25519 ANA ana\nnonsense\n", Adoption{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ours := Adopt(f, drift(tt.content))
			if diff := cmp.Diff(tt.want, got); diff != "" || !ours {
				t.Errorf("ours %v, adoption (-want +got):\n%s", ours, diff)
			}
		})
	}
	if _, ours := Adopt(f, fleet.Drift{Path: dropInPath, Kind: fleet.DriftChanged}); ours {
		t.Error("sshd's drop-in counts as a list of operators")
	}
}
