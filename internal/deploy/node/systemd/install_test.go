package systemd

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

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
			links, err := InstallLinks(tt.unit, []byte(tt.file))
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
		links, err := InstallLinks("a.service", file)
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
