package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// servicePatience bounds one question to a service.
const servicePatience = 5 * time.Second

// glance bounds a look at all services at once.
const glance = 3 * time.Second

// Failing looks once at those checks that are a unit's, and says by unit what was
// seen where one does not hold.
func (m Machine) Failing(ctx context.Context, checks []fleet.Check) map[string]string {
	ctx, cancel := context.WithTimeoutCause(ctx, glance, fmt.Errorf("no answer within %s", glance))
	defer cancel()
	errs := make([]error, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		if c.Unit != "" {
			wait.Go(func() { errs[i] = m.Look(ctx, c) })
		}
	}
	wait.Wait()
	out := make(map[string]string)
	for i, err := range errs {
		if err != nil {
			out[checks[i].Unit] = err.Error()
		}
	}
	return out
}

// takes says whether a port takes connections.
func takes(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// answers says whether a GET of the URL is answered with a status from 200 to
// 399. It goes by no proxy, follows no redirection, and leaves no connection.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, servicePatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "moggy-health")
	req.Close = true
	t := &http.Transport{DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	const most = 64 << 10
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, most)); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s: status %s", url, res.Status)
	}
	return nil
}
