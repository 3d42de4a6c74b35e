package nomad

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Conn is a connection over a program's input and output. Reading and writing end
// with Close, and have no deadlines: who needs one closes.
type Conn struct {
	io.Reader
	io.Writer
	Closer func() error
}

// Close ends it.
func (c Conn) Close() error { return c.Closer() }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// LocalAddr is no address.
func (Conn) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr is no address.
func (Conn) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline does nothing.
func (Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (Conn) SetWriteDeadline(time.Time) error { return nil }

// connections bounds how many are open to a server at once.
const connections = 4

// Client is a client of Nomad's API whose connections dial makes, each to where
// Local.Serve serves.
func Client(dial func(context.Context) (net.Conn, error)) (*api.Client, func(), error) {
	transport := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections,
	}
	c, err := api.NewClient(&api.Config{Address: "http://nomad.internal", HttpClient: &http.Client{Transport: transport}})
	return c, transport.CloseIdleConnections, err
}
