package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
)

func TestPathHere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ways/ari", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}\n") })
	s := httptest.NewUnstartedServer(mux)
	s.Listener = l
	s.Start()
	defer s.Close()
	var out bytes.Buffer
	if err := pathHere(t.Context(), socket, "ari", &out); err != nil || out.String() != "{}" {
		t.Errorf("said %q, %v", &out, err)
	}
	if err := pathHere(t.Context(), socket, "../status", &out); err == nil || !strings.Contains(err.Error(), "no node ../status") {
		t.Errorf("a stranger's name: %v", err)
	}
	if err := pathHere(t.Context(), socket+"x", "ari", &out); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without an agent: %v", err)
	}
}

func TestPathUnanswered(t *testing.T) {
	for stderr, want := range map[string]string{
		"moggy: error: its mesh has no node ari\nmoggy: hint:  x": "bianco: its mesh has no node ari",
		"Error: unknown command \"path\" for \"moggy\"":           "bianco: its moggy is too old to say",
	} {
		err := unansweredPath("bianco", &ssh.ExitError{Code: 1, Stderr: stderr})
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", stderr, err, want)
		}
	}
	other := errors.New("no route")
	if err := unansweredPath("bianco", other); !errors.Is(err, other) {
		t.Errorf("%v, want %v", err, other)
	}
}
