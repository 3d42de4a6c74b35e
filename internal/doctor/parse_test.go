package doctor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestParse(t *testing.T) {
	e := well(trio(), "one").Examination
	e.Logs = []fleet.UnitLog{{Unit: "x\x1b[31m", Lines: make([]string, 1000)}}
	e.Observed.Drift = []fleet.Drift{{Path: "/etc/\x1b]0;owned\a" + strings.Repeat("x", 1000), Content: "secret?"}}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	d := got.Observed.Drift[0]
	if len(got.Logs[0].Lines) != maxLog || got.Logs[0].Unit != "x[31m" || d.Content != "" || len(d.Path) > maxText+3 || strings.ContainsFunc(d.Path, unicode.IsControl) {
		t.Errorf("not fit to be shown: %+v %+v", got.Logs[0].Unit, d)
	}
	for _, bad := range []string{"", "{}", `{"protocol":1}`, `{"protocol":99,"version":1}`, `{"protocol":2,"version":2}`, "[1]"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if _, err := Parse(make([]byte, MaxAnswer+1)); err == nil {
		t.Error("an answer without end was taken")
	}
	old, err := ParseObserved([]byte(`{"version":1,"moggy":"0.1.0","system":{"clock":"2026-11-22T12:00:00Z"}}`))
	if err != nil || old.Unknown["examine"] == "" || old.Clock.IsZero() {
		t.Errorf("of an old moggy: %+v, %v", old, err)
	}
}

// FuzzParse takes whatever a node may answer: what comes of it can be judged by
// every probe and be shown.
func FuzzParse(f *testing.F) {
	b, err := json.Marshal(well(trio(), "one").Examination)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"protocol":2,"version":1,"observed":{"version":1,"mesh":{"peers":[{"name":"x"}]}}}`))
	f.Add([]byte(`{"protocol":2,"version":1,"observed":{"activation":{}},"mounts":[{"path":"\u001b","total":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (fleet.Examination, error){Parse, ParseObserved} {
			e, err := parse(b)
			if err != nil {
				continue
			}
			fleetOf := trio()
			fleetOf.Results = func(ID) Result { return Result{} }
			fleetOf.Answers["one"] = Answer{Examination: e, Sent: noon, Received: noon.Add(time.Second)}
			for _, name := range chain()[rank(Moggy):] {
				if name == Mesh && (e.Observed == nil || e.Observed.Mesh == nil) {
					continue // it needs the agent's probe, which has failed
				}
				res := fleetOf.Judge(ID{"one", name})
				if res.Status == "" || strings.ContainsFunc(res.Text, unicode.IsControl) {
					t.Errorf("%s: %q cannot be shown", name, res.Text)
				}
			}
		}
	})
}
