package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// script is a Runner that answers each command from a function.
type script func(args []string, stdin io.Reader, stdout io.Writer) error

func (s script) Run(_ context.Context, _ fleet.NodeName, c ssh.Command) error {
	return s(c.Args, c.Stdin, c.Stdout)
}

func TestSaid(t *testing.T) {
	err := said(&ssh.ExitError{Code: 1, Stderr: "noise\nmoggy: error: disk full\nmoggy: hint:  make room\n"})
	if err.Error() != "disk full" {
		t.Errorf("error %q, want the node's own words", err)
	}
	if diff := cmp.Diff([]string{"make room"}, hint.All(err)); diff != "" {
		t.Errorf("hints (-want +got):\n%s", diff)
	}
	if lost(err) {
		t.Error("what the node said counts as a lost connection")
	}
	if err := said(&ssh.Unreachable{Node: "ari"}); !lost(err) {
		t.Error("a node that cannot be reached does not count as a lost connection")
	}
}

func TestFollow(t *testing.T) {
	line := func(e protocol.Event) string {
		e.Protocol = protocol.Version
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	step := line(protocol.Event{Step: "link", Text: "/etc/moggy/mesh.json"})
	tests := map[string]struct {
		out      string
		exit     error
		wantErr  string
		wantLost bool
	}{
		"ends well":                {step + line(protocol.Event{End: &protocol.Outcome{Generation: 4}}), nil, "", false},
		"ends badly":               {step + line(protocol.Event{End: &protocol.Outcome{Error: "unit failed", Hints: []string{"look"}}}), &ssh.ExitError{Code: 1}, "unit failed", false},
		"connection lost":          {step, &ssh.Unreachable{}, "no way to it", true},
		"cut off without a word":   {step, nil, "did not say how it ended", true},
		"refused before it begins": {"", &ssh.ExitError{Code: 75, Stderr: "moggy: error: nico@laptop is at work"}, "nico@laptop is at work", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var told []string
			run := script(func(_ []string, _ io.Reader, stdout io.Writer) error {
				_, err := io.WriteString(stdout, tt.out)
				return errors.Join(err, tt.exit)
			})
			_, err := target{run: run}.follow(t.Context(), func(s string) { told = append(told, s) }, "activate", "4")
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if lost(err) != tt.wantLost {
				t.Errorf("lost(%v) = %v, want %v", err, lost(err), tt.wantLost)
			}
			if tt.out != "" && !cmp.Equal(told, []string{"link /etc/moggy/mesh.json"}) {
				t.Errorf("told %q", told)
			}
		})
	}
}

// TestStage sends what is missing, and only that, in a stream that the node's
// side reads back.
func TestStage(t *testing.T) {
	have, lacking := []byte("have"), []byte("lacking")
	m := fleet.Manifest{Version: 1, Fleet: "f", Node: "n", Generation: 3, Files: []fleet.ManifestFile{
		{Path: "/etc/a", Mode: 0o644, Digest: fleet.DigestOf(have)}, {Path: "/etc/b", Mode: 0o644, Digest: fleet.DigestOf(lacking)},
	}}
	var stream bytes.Buffer
	run := script(func(args []string, stdin io.Reader, stdout io.Writer) error {
		answer := any(protocol.Missing{Hello: protocol.Hello{Protocol: 1}, Digests: []fleet.Digest{fleet.DigestOf(lacking)}})
		if args[len(args)-1] == "stage" {
			answer = protocol.Staged{Hello: protocol.Hello{Protocol: 1}, Generation: 3}
			if _, err := stream.ReadFrom(stdin); err != nil {
				return err
			}
		}
		return json.NewEncoder(stdout).Encode(answer)
	})
	open := func(d fleet.Digest) (io.ReadCloser, int64, error) {
		if d != fleet.DigestOf(lacking) {
			return nil, 0, fmt.Errorf("asked for %s", d)
		}
		return io.NopCloser(bytes.NewReader(lacking)), int64(len(lacking)), nil
	}
	if err := (target{run: run}).stage(t.Context(), m, open, func(string) {}); err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(stream.String(), "\n")
	if !strings.Contains(head, `"generation":3`) || body != "lacking" {
		t.Errorf("stream: header %s, body %q", head, body)
	}
}
