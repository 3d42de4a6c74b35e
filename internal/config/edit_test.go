package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func TestAddOperators(t *testing.T) {
	ana := fleet.Operator{Name: "ana", Key: "ssh-ed25519 AAAA ana@desk"}
	bo := fleet.Operator{Name: "bo", Key: "ssh-ed25519 BBBB ${bo}"}
	tests := map[string]struct{ in, want string }{
		"on a line": {
			"fleet \"cats\" {\n  operators = { nico = \"k\" } # us\n}\n",
			"fleet \"cats\" {\n  operators = { nico = \"k\", ana = \"ssh-ed25519 AAAA ana@desk\", bo = \"ssh-ed25519 BBBB $${bo}\" } # us\n}\n",
		},
		"in lines": {
			"fleet \"cats\" {\n  operators = {\n    nico = \"k\" # me\n  }\n  port = 1\n}\n",
			"fleet \"cats\" {\n  operators = {\n    nico = \"k\" # me\n    ana  = \"ssh-ed25519 AAAA ana@desk\"\n    bo   = \"ssh-ed25519 BBBB $${bo}\"\n  }\n  port = 1\n}\n",
		},
		"in lines with commas": {
			"fleet \"cats\" {\n  operators = {\n    nico = \"k\",\n  }\n}\n",
			"fleet \"cats\" {\n  operators = {\n    nico = \"k\",\n    ana  = \"ssh-ed25519 AAAA ana@desk\"\n    bo   = \"ssh-ed25519 BBBB $${bo}\"\n  }\n}\n",
		},
		"none yet": {
			"# ours\nfleet \"cats\" {\n}\n",
			"# ours\nfleet \"cats\" {\n  operators = {\n    ana = \"ssh-ed25519 AAAA ana@desk\"\n    bo  = \"ssh-ed25519 BBBB $${bo}\"\n  }\n}\n",
		},
		"not formatted": {
			"fleet \"cats\" {\n operators = {nico=\"k\"}\n}\nsite   \"x\" {}\n",
			"fleet \"cats\" {\n operators = {nico=\"k\", ana = \"ssh-ed25519 AAAA ana@desk\", bo = \"ssh-ed25519 BBBB $${bo}\"}\n}\nsite   \"x\" {}\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := AddOperators(source.Text{Name: "fleet.hcl", Content: []byte(tt.in)}, []fleet.Operator{ana, bo})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
	for name, in := range map[string]string{
		"no fleet": "site \"x\" {}\n", "not a map": "fleet \"x\" {\n  operators = 3\n}\n", "no HCL": "fleet {{{",
	} {
		if out, err := AddOperators(source.Text{Name: "fleet.hcl", Content: []byte(in)}, []fleet.Operator{ana}); err == nil {
			t.Errorf("%s: no error, but\n%s", name, out)
		}
	}
}

func TestOperatorOf(t *testing.T) {
	taken := []fleet.Operator{{Name: "ana"}}
	real := func(comment string) string {
		// RFC 8410's example key, in OpenSSH's clothes.
		return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMeLKqpBSvzQMy8p+ " + comment
	}
	for comment, want := range map[string]string{"Bo@desk": "bo", "ana@desk": "ana2", "": "operator", "7.-x-": "x", "ünï": "n"} {
		o, err := OperatorOf(strings.TrimSpace(real(comment)), taken)
		if err != nil || o.Name != want {
			t.Errorf("comment %q: %+v, %v; want the name %q", comment, o, err, want)
		}
	}
	if _, err := OperatorOf("from=\"10.0.0.1\" "+real("x"), nil); err == nil {
		t.Error("a key with options was taken, which the file cannot say")
	}
}
