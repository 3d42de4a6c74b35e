package node

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

func TestInstallLinks(t *testing.T) {
	tests := map[string]struct {
		unit, file string
		want       []string // below the units' directory
		err        string
	}{
		"none":          {"a.service", "[Service]\nWantedBy=not.here\n", nil, ""},
		"wanted":        {"a.service", "[Install]\nWantedBy=multi-user.target\n", []string{"multi-user.target.wants/a.service"}, ""},
		"by two":        {"a.service", "[Install]\nWantedBy = x.target  y.target\n", []string{"x.target.wants/a.service", "y.target.wants/a.service"}, ""},
		"twice":         {"a.service", "[Install]\nWantedBy=x.target\nRequiredBy=y.target\n", []string{"x.target.wants/a.service", "y.target.requires/a.service"}, ""},
		"continued":     {"a.service", "[Install]\nWantedBy=x.target \\\n  y.target\n", []string{"x.target.wants/a.service", "y.target.wants/a.service"}, ""},
		"comments":      {"a.service", "[Install]\n# Alias=no\n; Also=no\nWantedBy=x.target\n", []string{"x.target.wants/a.service"}, ""},
		"instance":      {"a@1.service", "[Install]\nWantedBy=x.target\n", []string{"x.target.wants/a@1.service"}, ""},
		"after Install": {"a.service", "[Install]\nWantedBy=x.target\n[Service]\nAlias=no\n", []string{"x.target.wants/a.service"}, ""},
		"alias":         {"a.service", "[Install]\nAlias=b.service\n", nil, "[Install] Alias: only"},
		"a path":        {"a.service", "[Install]\nWantedBy=../../../tmp/x.target\n", nil, "is not a unit's name"},
		"a specifier":   {"a.service", "[Install]\nWantedBy=%i.target\n", nil, "is not a unit's name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			links, err := installLinks(tt.unit, []byte(tt.file))
			if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			var got []string
			for _, l := range slices.Sorted(maps.Keys(links)) {
				got = append(got, strings.TrimPrefix(l, protocol.SystemdDir+"/"))
				if links[l] != protocol.UnitFile(tt.unit) {
					t.Errorf("%s leads to %s", l, links[l])
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzInstallLinks: no unit file makes a link anywhere but in a directory of
// dependencies.
func FuzzInstallLinks(f *testing.F) {
	f.Add([]byte("[Unit]\n[Install]\nWantedBy=multi-user.target\nRequiredBy=a b\\\n c\n"))
	f.Add([]byte("[Install]\nWantedBy=../x.target\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		links, err := installLinks("a.service", file)
		if err != nil {
			return
		}
		for l := range links {
			dir := path.Dir(l)
			ext := path.Ext(dir)
			if path.Clean(l) != l || path.Dir(dir) != protocol.SystemdDir || ext != ".wants" && ext != ".requires" && ext != ".upholds" {
				t.Errorf("a link at %q", l)
			}
		}
	})
}

func TestParseShow(t *testing.T) {
	const block = `Type=simple
Result=success
NRestarts=2
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=5000000`
	want := UnitStatus{
		Name: "a.service", Load: "loaded", Active: "active", Sub: "running", Type: "simple", Result: "success", Restarts: 2, ActiveFor: 3 * time.Second,
	}
	if diff := cmp.Diff(want, parseShow("a.service", block, 8*time.Second)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got := parseShow("a.timer", "LoadState=loaded\nActiveState=inactive\nNRestarts=[not set]\nActiveEnterTimestampMonotonic=0", time.Second)
	if got.ActiveFor != 0 || got.Restarts != 0 || got.runs() {
		t.Errorf("%+v", got)
	}
}

// FuzzParseShow: systemctl's words, whatever they are, do not stop us.
func FuzzParseShow(f *testing.F) {
	f.Add("LoadState=loaded\nActiveState=active\nActiveEnterTimestampMonotonic=5000000")
	f.Fuzz(func(t *testing.T, block string) {
		u := parseShow("a.service", block, time.Hour)
		if u.ActiveFor < 0 || u.Name != "a.service" || u.ActiveFor > 0 && !u.runs() {
			t.Errorf("%+v", u)
		}
	})
}
