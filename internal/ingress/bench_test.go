package ingress

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// figures of one round.
type figures struct {
	perSecond float64
	p99       time.Duration
	cpu       time.Duration // for a request, the client's and the backend's in it
}

// TestBench measures the ingress beside Caddy by itself, which gets the same backend,
// certificate and handlers in a configuration of its own: one after the other, in
// rounds, on one machine (make bench-ingress).
func TestBench(t *testing.T) {
	if os.Getenv("MOGGY_BENCH") == "" {
		t.Skip("MOGGY_BENCH is not set")
	}
	page := strings.Repeat("a cat ", 150)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }))
	defer web.Close()
	var ours, plain []figures
	for range 5 {
		t.Run("round", func(t *testing.T) {
			f := start(t, func(c *fleet.IngressConfig, _ string) {
				c.Services = []fleet.IngressService{{Name: "web", Health: fleet.HealthHTTP, Path: "/", Backends: []fleet.IngressBackend{backendAt(web, "n")}}}
				c.Routes = []fleet.IngressRoute{{Host: "cats.example", Path: "/", To: fleet.Public, Service: "web"}}
			})
			f.certified(t, "cats.example")
			f.measure(t) // until it is warm
			ours = append(ours, f.measure(t))
			f.becomePlain(t, backendAt(web, "n").Address.String())
			f.measure(t)
			plain = append(plain, f.measure(t))
		})
	}
	throughput, p99, cpu := make([]float64, 0, 5), make([]float64, 0, 5), make([]float64, 0, 5)
	for i := range ours {
		t.Logf("ours %6.0f/s p99 %v cpu %v   Caddy %6.0f/s p99 %v cpu %v", ours[i].perSecond, ours[i].p99, ours[i].cpu, plain[i].perSecond, plain[i].p99, plain[i].cpu)
		throughput = append(throughput, ours[i].perSecond/plain[i].perSecond)
		cpu = append(cpu, float64(ours[i].cpu)/float64(plain[i].cpu))
		p99 = append(p99, float64(ours[i].p99)/float64(plain[i].p99))
	}
	slices.Sort(throughput)
	slices.Sort(p99)
	slices.Sort(cpu)
	t.Logf("median: throughput %.3f of Caddy's, p99 %.3f, CPU %.3f", throughput[2], p99[2], cpu[2])
	if throughput[2] < 0.95 {
		t.Error("less than 0.95 of the engine alone")
	}
}

// becomePlain replaces what is served by Caddy alone, on the same ports.
func (f *fixture) becomePlain(t *testing.T, backend string) {
	t.Helper()
	keys, err := f.store.List(t.Context(), "certificates", true)
	if err != nil {
		t.Fatal(err)
	}
	pem := make(map[string]string)
	for _, k := range keys {
		if text, err := f.store.Load(t.Context(), k); err == nil {
			pem[path.Ext(k)] = string(text)
		}
	}
	text, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "stderr"}, "encoder": object{"format": "json"}, "level": "INFO"}}},
		"apps": object{
			"tls": object{"certificates": object{"load_pem": []any{object{"certificate": pem[".crt"], "key": pem[".key"]}}}},
			"http": object{"servers": object{"secure": object{
				"listen": []string{fmt.Sprintf(":%d", f.opt.HTTPSPort)}, "automatic_https": object{"disable": true}, "logs": object{}, "tls_connection_policies": []any{object{}},
				"routes": []any{object{"match": []any{object{"host": []string{"cats.example"}}}, "handle": []any{
					object{"handler": "encode", "encodings": object{"zstd": object{}, "gzip": object{}}, "prefer": []string{"zstd", "gzip"}},
					object{"handler": "reverse_proxy", "upstreams": []any{object{"dial": backend}}},
				}}},
			}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// Stopped first: what gives way to another keeps the certificates of both in one
	// cache, and takes this one out as its own.
	if err := errors.Join(caddy.Stop(), caddy.Load(text, true)); err != nil {
		t.Fatal(err)
	}
}

// measure asks for the page as fast as it goes, over 16 connections of HTTP/1.1.
func (f *fixture) measure(t *testing.T) figures {
	t.Helper()
	const clients, lasts = 16, 2 * time.Second
	tr := f.newClient(t, "127.0.0.1").Transport.(*http.Transport)
	tr.ForceAttemptHTTP2, tr.MaxIdleConnsPerHost = false, clients
	tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	c := http.Client{Transport: tr}
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	begin, used := time.Now(), cpuUsed(t)
	for range clients {
		all.Go(func() {
			var mine []time.Duration
			for time.Since(begin) < lasts {
				at := time.Now()
				res, err := c.Get(f.url("cats.example", "/"))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					t.Error(res.Status)
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	all.Wait()
	if len(took) == 0 {
		t.Fatal("no answer at all")
	}
	slices.Sort(took)
	return figures{float64(len(took)) / time.Since(begin).Seconds(), took[len(took)*99/100], (cpuUsed(t) - used) / time.Duration(len(took))}
}

// cpuUsed is what this process used so far: on a machine that others use as well, it
// says more than the time that passed.
func cpuUsed(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
