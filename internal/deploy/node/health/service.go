package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// servicePatience bounds one question to a service.
const servicePatience = 5 * time.Second

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
