package status

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

func TestPath(t *testing.T) {
	tried := noon.Unix() - 67
	tests := map[string]fleet.PeerStatus{
		"path relayed": {
			Name: "ari", Path: fleet.PathRelayed, Via: "miki", RTTMicro: 48_200, HeardMs: 300, SinceSec: 70, Why: "better",
			Ways: []fleet.Way{
				{Path: fleet.PathDirectV6, State: fleet.WayNone, Why: "bianco has none"},
				{Path: fleet.PathDirectV4, State: fleet.WayUntold, Why: "both are behind NAT that maps per destination", Tried: tried},
				{Path: fleet.PathRelayed, Via: "miki", State: fleet.WayUsed, RTTMicro: 48_200, HeardMs: 300, TxBytes: 1_234_567, RxBytes: 99},
				{Path: fleet.PathRelayed, Via: "cosmo", State: fleet.WaySpare, RTTMicro: 51_000, HeardMs: 400},
				{Path: fleet.PathRelayed, Via: "maco", State: fleet.WayProven, RTTMicro: 51_900, HeardMs: 900, Loss: 0.125},
			},
		},
		"path after a failure": {
			Name: "ari", Path: fleet.PathRelayed, Via: "miki", RTTMicro: 9_100, HeardMs: 40, Loss: 0.031, SinceSec: 200_000, Why: "no answer",
			Ways: []fleet.Way{
				{Path: fleet.PathDirectV6, State: fleet.WayLost, RTTMicro: 2_000, HeardMs: 65_000, HeldSec: 12, Why: "a firewall may be in between", Tried: tried},
				{Path: fleet.PathDirectV4, State: fleet.WayNarrow, RTTMicro: 2_100, HeardMs: 900},
				{Path: fleet.PathRelayed, Via: "miki", State: fleet.WayUsed, RTTMicro: 9_100, HeardMs: 40, Loss: 0.031},
				{Path: fleet.PathRelayed, Via: "cosmo", State: fleet.WayUntold},
			},
		},
		"path long ago": {Name: "ari", Path: fleet.PathDirectV4, RTTMicro: 9_100, HeardMs: 3_600_000, SinceSec: 7200, Why: "better"},
		"path none":     {Name: "ari", Path: fleet.PathNone},
	}
	for name, to := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			p := Path{Version: PathVersion, From: "bianco", At: noon, To: to}
			if err := p.Write(&b, term.NewPalette(false)); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".txt"), b.String())
		})
	}
}

func TestPathsTellLoss(t *testing.T) {
	got := Paths([]fleet.PeerStatus{
		{Name: "ari", Path: fleet.PathDirectV6, RTTMicro: 12_000, HeardMs: 1, Loss: 0.125},
		{Name: "bianco", Path: fleet.PathRelayed, Via: "cosmo", RTTMicro: 48_000, HeardMs: 1, Loss: 0.004},
	})
	if want := "direct v6: ari 12ms (12 % lost); by cosmo: bianco 48ms"; got != want {
		t.Errorf("says %q, want %q", got, want)
	}
}
