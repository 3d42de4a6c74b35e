package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/lab/topology"
	"github.com/moggyfleet/moggy/internal/lab/trust"
)

func goarch() string { return runtime.GOARCH }

// Where Pebble listens in the internet's namespace: for its front, and for the
// lab that asks for its root.
const (
	pebbleAddress    = "127.0.0.1:14000"
	pebbleManagement = "127.0.0.1:15000"
)

// certificateLife is how long its certificates hold, in seconds: Let's
// Encrypt's 90 days.
const certificateLife = 90 * 24 * 3600

// authority takes up the lab's certificate authority, and makes it first where
// there is none.
func (s *session) authority() (*trust.Authority, error) {
	cert, err := os.ReadFile(s.run("ca.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, keyErr := os.ReadFile(s.run("ca.key"))
	if err == nil && keyErr == nil {
		return trust.Load(cert, key, s.opts.Now)
	}
	if cert, key, err = trust.Make("moggy lab "+s.name, s.opts.Now); err != nil {
		return nil, err
	}
	if err := errors.Join(writeFile(s.run("ca.key"), key), writeFile(s.run("ca.crt"), cert)); err != nil {
		return nil, err
	}
	return trust.Load(cert, key, s.opts.Now)
}

// startPebble starts the ACME server, where it was built and does not run.
func (s *session) startPebble(ctx context.Context) error {
	program := filepath.Join(s.engine("pebble"), "pebble")
	if _, err := os.Stat(program); err != nil || s.reaches(ctx, pebbleAddress) {
		return nil //nolint:nilerr // without it there are no certificates; up says so
	}
	authority, err := s.authority()
	if err != nil {
		return err
	}
	cert, key, err := authority.Issue("localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": pebbleAddress, "managementListenAddress": pebbleManagement,
		"certificate": s.run("pebble.crt"), "privateKey": s.run("pebble.key"),
		"httpPort": 80, "tlsPort": 443, "keyAlgorithm": "ecdsa", "caaIdentities": []string{"letsencrypt.org"},
		"profiles": map[string]any{"classic": map[string]any{"description": "90 days", "validityPeriod": certificateLife}},
	}})
	if err != nil {
		return err
	}
	if err := errors.Join(writeFile(s.run("pebble.crt"), cert), writeFile(s.run("pebble.key"), key), writeFile(s.run("pebble.json"), config)); err != nil {
		return err
	}
	resolver := s.net.Servers[topology.DNS].V4.String() + ":53"
	// It would wait up to 15 s before it looks, to make clients poll.
	return s.detached("pebble.log", []string{"PEBBLE_VA_NOSLEEP=1"}, program, "-config", s.run("pebble.json"), "-dnsserver", resolver)
}

// acmeRoot waits for the ACME server and returns the root that it made when it
// started, as PEM; nothing where there is no server.
func (s *session) acmeRoot(ctx context.Context) ([]byte, error) {
	if _, err := os.Stat(s.run("pebble.json")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:       dialer(s.full(topology.Mirror)),
		TLSClientConfig:   &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS13},
		DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		root, err := get(ctx, client, "https://"+pebbleManagement+"/roots/0")
		if err == nil {
			return root, nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(s.run("pebble.log"))
			return nil, fmt.Errorf("the ACME server does not answer: %w: %s", err, said)
		case <-tick.C:
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// debianRoots is the bundle of all roots that Debian trusts, in a machine.
const debianRoots = "etc/ssl/certs/ca-certificates.crt"

// writeTrust writes down whom everybody in the lab's internet trusts: Debian's
// roots, the lab's own, and the ACME server's.
func (s *session) writeTrust(acme []byte) error {
	debian, err := os.ReadFile(filepath.Join(s.state.Root, debianRoots))
	if err != nil {
		return err
	}
	own, err := os.ReadFile(s.run("ca.crt"))
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(s.run("acme.crt"), acme),
		writeFile(s.run("trust.pem"), bytes.Join([][]byte{debian, own, acme}, nil)))
}

// resolver is the resolv.conf of those who have these address families.
func (s *session) resolver(v4, v6 bool) string {
	var b strings.Builder
	b.WriteString("# the resolver of the lab's internet\n")
	dns := s.net.Servers[topology.DNS]
	if v4 {
		fmt.Fprintf(&b, "nameserver %s\n", dns.V4)
	}
	if v6 {
		fmt.Fprintf(&b, "nameserver %s\n", dns.V6)
	}
	return b.String()
}
