// Package nomad talks to Nomad's API: on a node to the agent there, from the
// operator through that node's, over ssh. What shall run is rendered elsewhere
// (package engine/nomad).
//
//	operator                        a server
//	api.Client ── HTTP/1.1 over ssh ──▶ moggy node nomad ── mTLS, token ──▶ agent, port 4646
//
// Neither certificate nor token ever leaves the server.
package nomad

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/engine/certs"
	engine "github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Local is the agent of the node we are on, with the files by which it knows us.
type Local struct {
	At    netip.AddrPort // of its API
	Roots string         // PEM file of the servers' authorities
	Pair  string         // PEM file of our certificate and key
	Token string         // file of the token; "" to go without
}

// OnNode is the agent of this node, as the fleet's Nomad is set up.
func OnNode() (Local, error) {
	text, err := os.ReadFile(engine.ConfigPath)
	if err != nil {
		return Local{}, hint.Wrap(err, "this node runs no Nomad: scheduler = \"nomad\" in fleet.hcl, then moggy apply")
	}
	var config struct {
		Address netip.Addr `json:"bind_addr"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return Local{}, fmt.Errorf("%s: %w", engine.ConfigPath, err)
	}
	return Local{
		At: netip.AddrPortFrom(config.Address, engine.PortHTTP), Roots: engine.RootsPath,
		Pair: certs.NomadPair, Token: engine.SecretsDir + "/" + engine.TokenSecret,
	}, nil
}

// Environment is what Nomad's own command line needs, as it reads it.
func (l Local) Environment() ([]string, error) {
	token, err := l.token()
	return []string{
		"NOMAD_ADDR=https://" + l.At.String(), "NOMAD_CACERT=" + l.Roots,
		"NOMAD_CLIENT_CERT=" + l.Pair, "NOMAD_CLIENT_KEY=" + l.Pair, "NOMAD_TOKEN=" + token,
	}, err
}

func (l Local) token() (string, error) {
	if l.Token == "" {
		return "", nil
	}
	b, err := os.ReadFile(l.Token)
	return strings.TrimSpace(string(b)), err
}

// transport reads the certificate anew with each connection: it is renewed.
func (l Local) transport() (*http.Transport, error) {
	pem, err := os.ReadFile(l.Roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificates in it", l.Roots)
	}
	return &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(l.Pair, l.Pair)
				return &c, err
			},
		},
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}, nil
}

// Serve passes requests of one connection on to the agent, with our certificate
// and token, until it is closed.
func (l Local) Serve(ctx context.Context, conn net.Conn) error {
	token, err := l.token()
	if err != nil {
		return err
	}
	transport, err := l.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	if err := l.bootstrap(ctx, transport, token); err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: l.At.String()})
			r.Out.Header.Set("X-Nomad-Token", token)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "nomad does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	once := newOnce(conn)
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Hour, ConnState: once.state}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(once); !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bootstrapPatience is how long the servers may take to have a leader.
const bootstrapPatience = 30 * time.Second

// bootstrap makes the token the one that may do all, where none is yet: a fresh
// cluster gives that power once, to who asks first.
func (l Local) bootstrap(ctx context.Context, transport http.RoundTripper, token string) error {
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	until := time.Now().Add(bootstrapPatience)
	body, err := json.Marshal(map[string]string{"BootstrapSecret": token})
	if err != nil {
		return err
	}
	for {
		status, text, err := l.ask(ctx, client, http.MethodGet, "/v1/acl/token/self", token, nil)
		if err == nil && status == http.StatusOK {
			return nil
		}
		if err == nil && status == http.StatusForbidden {
			if status, text, err = l.ask(ctx, client, http.MethodPost, "/v1/acl/bootstrap", "", body); err == nil && status == http.StatusOK {
				return nil
			}
			if strings.Contains(text, "already done") && time.Now().Add(bootstrapPatience/2).After(until) {
				return hint.New("Nomad does not know our token, and has another one that may do all",
					"to begin anew (running services go on): nomad acl bootstrap has the reset procedure")
			}
		}
		if time.Now().After(until) {
			if err == nil {
				err = fmt.Errorf("%d: %s", status, text)
			}
			return hint.Wrap(fmt.Errorf("nomad at %s: %w", l.At, err), "journalctl -u moggy-nomad -n 50 on the servers; moggy doctor")
		}
		timer := time.NewTimer(300 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

func (l Local) ask(ctx context.Context, c *http.Client, method, path, token string, body []byte) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+l.At.String()+path, strings.NewReader(string(body)))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Nomad-Token", token)
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode == http.StatusOK {
		text = nil // it has the token in it
	}
	return resp.StatusCode, strings.TrimSpace(string(text)), err
}

// once is a listener with one connection: its end is the listener's.
type once struct {
	conn chan net.Conn
	over chan struct{}
	end  sync.Once
	addr net.Addr
}

func newOnce(c net.Conn) *once {
	o := &once{conn: make(chan net.Conn, 1), over: make(chan struct{}), addr: c.LocalAddr()}
	o.conn <- c
	return o
}

func (o *once) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.over:
		return nil, io.EOF
	}
}

func (o *once) Close() error {
	o.end.Do(func() { close(o.over) })
	return nil
}

func (o *once) Addr() net.Addr { return o.addr }

func (o *once) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		o.Close()
	}
}
