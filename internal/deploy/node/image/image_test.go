package image

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/hint"
)

// docker answers as the real one does, by the first two words of what it is
// asked.
func docker(answers map[string]error, asked *[]string) func(context.Context, []string, string, ...string) ([]byte, error) {
	return func(_ context.Context, _ []string, name string, args ...string) ([]byte, error) {
		*asked = append(*asked, args[0])
		return nil, answers[args[0]]
	}
}

func TestPull(t *testing.T) {
	down := errors.New("exit status 1: Error response from daemon: Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host")
	tests := map[string]struct {
		answers map[string]error
		want    string // in the error; "" for none
	}{
		"there":                              {nil, ""},
		"registry down, image here":          {map[string]error{"pull": down}, ""},
		"registry down, none here":           {map[string]error{"pull": down, "image": errors.New("no such image")}, "does not reach the registry"},
		"no such tag, an old one of it here": {map[string]error{"pull": errors.New("manifest for registry.example/web:9 not found: manifest unknown")}, "is the name right"},
		"not let in":                         {map[string]error{"pull": errors.New("unauthorized: authentication required"), "image": errors.New("no such image")}, "docker login registry.example"},
		"disk full":                          {map[string]error{"pull": errors.New("write /var/lib/docker/x: no space left on device"), "image": errors.New("no such image")}, "docker image prune"},
		"no docker":                          {map[string]error{"version": fs.ErrNotExist}, "not on this machine"},
		"no daemon":                          {map[string]error{"version": errors.New("cannot connect")}, "docker does not answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var asked []string
			err := Docker{Run: docker(tt.answers, &asked), Patience: time.Millisecond}.Pull(t.Context(), "registry.example/web:9")
			said := words(err)
			if (err == nil) != (tt.want == "") || !strings.Contains(said, tt.want) {
				t.Errorf("error %q, want %q in it (asked: %v)", said, tt.want, asked)
			}
		})
	}
}

// words are an error's own and those of its hints.
func words(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(append([]string{err.Error()}, hint.All(err)...), " ")
}
