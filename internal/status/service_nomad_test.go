package status

import (
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestServicesOnNomad: no node is missed for an instance that Nomad may have placed
// anywhere.
func TestServicesOnNomad(t *testing.T) {
	f, _ := three()
	f.Services = []fleet.Service{{Name: "web", Exec: "./web", Count: 2}}
	for scheduler, want := range map[fleet.Scheduler]int{fleet.Systemd: 2, fleet.Nomad: 0} {
		f.Scheduler = scheduler
		var s Fleet
		s.services(f, answers(), noon)
		if len(s.Problems) != want {
			t.Errorf("%s: %d problems, want %d: %+v", scheduler, len(s.Problems), want, s.Problems)
		}
	}
}
