package status

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/term"
)

func TestRecount(t *testing.T) {
	start := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	const nico, ana = "nico@laptop", "ana@desk"
	turns := map[fleet.NodeName][]fleet.Turn{
		"ari": {
			{At: at(0), Kind: fleet.TurnActivated, Generation: 41, By: nico, Commit: "3fe21ab"},
			{At: at(3 * time.Second), Kind: fleet.TurnConfirmed, Generation: 41, By: nico},
			{At: at(time.Hour), Kind: fleet.TurnActivated, Generation: 42, From: 41, By: ana, Commit: "91bcdef+"},
			{At: at(time.Hour + 30*time.Second), Kind: fleet.TurnWentBack, Generation: 41, From: 42, By: "boot", Why: "nobody confirmed it"},
		},
		"ziggy": {
			{At: at(time.Second), Kind: fleet.TurnActivated, Generation: 41, By: nico, Commit: "3fe21ab"},
			{At: at(4 * time.Second), Kind: fleet.TurnConfirmed, Generation: 41, By: nico},
			// The same number again, by the same hand, much later.
			{At: at(3 * time.Hour), Kind: fleet.TurnRestored, Generation: 41, From: 41, By: nico},
			// A rollback, by the same hand and soon.
			{At: at(3*time.Hour + time.Minute), Kind: fleet.TurnActivated, Generation: 40, From: 41, By: nico},
			{At: at(3*time.Hour + 2*time.Minute), Kind: fleet.TurnConfirmed, Generation: 40, By: nico},
			{At: at(3*time.Hour + 3*time.Minute), Kind: fleet.TurnActivated, Generation: 41, From: 40, By: nico},
		},
		"maco": {
			{At: at(2 * time.Second), Kind: fleet.TurnFailed, Generation: 41, By: nico, Commit: "3fe21ab", Why: "disk full"},
		},
	}
	h := Recount("cats", turns, 0)
	want := []Entry{
		{At: at(3*time.Hour + 3*time.Minute), Generation: 41, By: nico, Results: []NodesTurn{{Kind: fleet.TurnActivated, Nodes: []fleet.NodeName{"ziggy"}}}},
		{At: at(3*time.Hour + time.Minute), Generation: 40, Back: 41, By: nico, Results: []NodesTurn{{Kind: fleet.TurnConfirmed, Nodes: []fleet.NodeName{"ziggy"}}}},
		{At: at(3 * time.Hour), Generation: 41, By: nico, Results: []NodesTurn{{Kind: fleet.TurnRestored, Nodes: []fleet.NodeName{"ziggy"}}}},
		{At: at(time.Hour), Generation: 42, By: ana, Commit: "91bcdef+", Results: []NodesTurn{
			{Kind: fleet.TurnWentBack, To: 41, Nodes: []fleet.NodeName{"ari"}, Why: "nobody confirmed it"},
		}},
		{At: at(0), Generation: 41, By: nico, Commit: "3fe21ab", Results: []NodesTurn{
			{Kind: fleet.TurnFailed, Nodes: []fleet.NodeName{"maco"}, Why: "disk full"},
			{Kind: fleet.TurnConfirmed, Nodes: []fleet.NodeName{"ari", "ziggy"}},
		}},
	}
	if diff := cmp.Diff(want, h.Entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if got := Recount("cats", turns, 1).Entries; len(got) != 1 || got[0].Generation != 41 || !got[0].At.Equal(at(3*time.Hour+3*time.Minute)) {
		t.Errorf("limited to one: %+v", got)
	}

	h.Silent = []fleet.NodeName{"bianco"}
	var b strings.Builder
	if err := h.Write(&b, term.Palette{}, start); err != nil {
		t.Fatal(err)
	}
	screen := `WHEN                 GEN       WHO          COMMIT    WHAT
2026-11-22 17:03:00  41        nico@laptop            activated, not confirmed  ziggy
2026-11-22 17:01:00  40 <- 41  nico@laptop            confirmed  ziggy
2026-11-22 17:00:00  41        nico@laptop            restored  ziggy
2026-11-22 15:00:00  42        ana@desk     91bcdef+  went back to 41  ari: nobody confirmed it
2026-11-22 14:00:00  41        nico@laptop  3fe21ab   failed  maco: disk full
                                                      confirmed  ari, ziggy
Without bianco, which could not be asked.
`
	if diff := cmp.Diff(screen, b.String()); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
}
