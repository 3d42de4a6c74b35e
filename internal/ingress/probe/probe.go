// Package probe asks backends whether they are well, over TCP or HTTP, and says
// what came of it. When to ask whom, and what an answer means, is package table's.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/ingress/table"
)

// Prober asks backends.
type Prober struct {
	dialer net.Dialer
	client http.Client
}

// New returns a prober.
func New() *Prober {
	p := &Prober{}
	p.client = http.Client{
		// A connection per question: that it can be made is part of the answer.
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: p.dialer.DialContext, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// Ask asks the backend at the address, for at most table.Timeout; why says, for
// people, what was wrong.
func (p *Prober) Ask(ctx context.Context, kind fleet.HealthKind, at netip.AddrPort, path string) (o table.Outcome, why string) {
	ctx, stop := context.WithTimeoutCause(ctx, table.Timeout, errSilent)
	defer stop()
	var err error
	if kind == fleet.HealthHTTP {
		err = p.get(ctx, "http://"+at.String()+path)
	} else {
		var c net.Conn
		if c, err = p.dialer.DialContext(ctx, "tcp", at.String()); err == nil {
			c.Close()
		}
	}
	return Judge(err)
}

var errSilent = errors.New("no answer")

// Judge says what an error in talking to a backend means.
func Judge(err error) (table.Outcome, string) {
	var timeout net.Error
	switch {
	case err == nil:
		return table.Answered, ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return table.Refused, "connection refused"
	case errors.Is(err, errSilent), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return table.Failed, errSilent.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return table.Failed, strings.ToLower(err.Error())
}

func (p *Prober) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "moggy-ingress")
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("answers %d", res.StatusCode)
	}
	return nil
}
