package plan

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
	"github.com/moggyfleet/moggy/internal/term"
)

func TestGoBack(t *testing.T) {
	w := newWorld(t, cats())
	for name, o := range w.in.Observed {
		o.Seen.Current.Previous, o.Seen.Kept = 3, []int{2, 3, 4}
		switch name {
		case "ziggy": // it stands on an older one
			o.Seen.Current.Number, o.Seen.Current.Previous = 3, 2
		case "bianco": // its first
			o.Seen.Current.Previous = 0
		case "miki":
			w.in.Observed[name] = Observation{Problem: "no answer within 10s"}
		}
	}
	b, err := GoBack(w.in.Fleet, w.in.Observed, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.Write(&out, term.NewPalette(false)); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "back.txt"), out.String())

	b, err = GoBack(w.in.Fleet, w.in.Observed, []fleet.NodeName{"ziggy"})
	if err != nil {
		t.Fatal(err)
	}
	want := []rollout.Node{{Name: "ziggy", Work: rollout.WorkSwitch, From: 3, To: 2, Named: true}}
	if diff := cmp.Diff(want, b.Rollout); diff != "" {
		t.Errorf("one by name (-want +got):\n%s", diff)
	}
	w.in.Observed["ziggy"].Seen.Kept = []int{3, 4}
	b, err = GoBack(w.in.Fleet, w.in.Observed, []fleet.NodeName{"ziggy"})
	if err != nil || len(b.Rollout) > 0 || !strings.Contains(b.Nodes[0].Note, "no generation before") {
		t.Errorf("a generation that is gone from its disk: %+v, %v", b, err)
	}
	if _, err := GoBack(w.in.Fleet, w.in.Observed, []fleet.NodeName{"elvis"}); err == nil {
		t.Error("a node that is not in the file: no error")
	}
}
