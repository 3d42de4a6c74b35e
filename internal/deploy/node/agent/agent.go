// Package agent asks this machine's agent, over its socket. It does not know
// what the mesh is.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Socket is the path of the agent's socket.
type Socket string

// patience bounds a question that the agent answers at once.
const patience = time.Second

// maxAnswer bounds, in bytes, what the agent may say: a thousand peers
// take some 200 kB.
const maxAnswer = 8 << 20

// Status asks the agent how the mesh is; nil when it does not answer.
func (s Socket) Status(ctx context.Context) *fleet.MeshStatus {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var st fleet.MeshStatus
	if s.Get(ctx, "/status", &st) != nil || st.Version < 1 {
		return nil
	}
	return &st
}

// Get asks the agent for what it has at a path, for as long as ctx allows.
func (s Socket) Get(ctx context.Context, path string, v any) error {
	b, err := s.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// Invite hands an invitation to the agent, which lets the invited machine in.
func (s Socket) Invite(ctx context.Context, i fleet.Invitation) error {
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := s.ask(ctx, http.MethodPost, "/invitations", b); err != nil {
		return hint.Wrap(fmt.Errorf("invite %s: %w", i.Node, err),
			"on the node: systemctl status moggy-agent; moggy apply restores it")
	}
	return nil
}

// Take hands the agent a private key of this node's, which it shall have next. One
// that does not run reads it when it starts.
func (s Socket) Take(ctx context.Context, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := s.ask(ctx, http.MethodPost, "/key", secret); err != nil {
		return hint.Wrap(fmt.Errorf("next mesh key: %w", err), "on the node: systemctl status moggy-agent; moggy apply restores it")
	}
	return nil
}

// ask makes one request over the agent's socket.
func (s Socket) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", string(s))
		},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("agent: %w", err)
	case len(b) > maxAnswer:
		return nil, errors.New("agent: its answer is too long")
	case resp.StatusCode >= 300:
		return nil, fmt.Errorf("agent: %s: %s", resp.Status, bytes.TrimSpace(b[:min(len(b), 300)]))
	}
	return b, nil
}
