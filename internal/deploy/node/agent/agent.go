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

// patience bounds one question to the agent.
const patience = time.Second

// maxAnswer bounds, in bytes, what the agent may say: a thousand peers
// take some 200 kB.
const maxAnswer = 8 << 20

// Status asks the agent how the mesh is; nil when it does not answer.
func (s Socket) Status(ctx context.Context) *fleet.MeshStatus {
	var st fleet.MeshStatus
	b, err := s.ask(ctx, http.MethodGet, "/status", nil)
	if err != nil || json.Unmarshal(b, &st) != nil || st.Version < 1 {
		return nil
	}
	return &st
}

// Invite hands an invitation to the agent, which lets the invited machine in.
func (s Socket) Invite(ctx context.Context, i fleet.Invitation) error {
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	if _, err := s.ask(ctx, http.MethodPost, "/invitations", b); err != nil {
		return hint.Wrap(fmt.Errorf("invite %s: %w", i.Node, err),
			"on the node: systemctl status moggy-agent; moggy apply restores it")
	}
	return nil
}

// ask makes one request over the agent's socket.
func (s Socket) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
