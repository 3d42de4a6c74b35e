// Command whoami says which of its instances answers, where that is, and what
// it was asked: a service to see routing with.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/engines/images/internal/serve"
)

func main() {
	serve.Main(http.HandlerFunc(answer), nil)
}

// answer prints one "Name: value" line for each thing it knows, then the
// request as it came. "?wait=2s" has it take that long.
func answer(w http.ResponseWriter, r *http.Request) {
	if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
		select {
		case <-time.After(min(d, time.Minute)):
		case <-r.Context().Done():
			return
		}
	}
	host, _ := os.Hostname()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s: %s\n", name, value)
		}
	}
	line("Version", os.Getenv("VERSION"))
	line("Hostname", host)
	// What the scheduler tells an instance of itself: ours, or Nomad's.
	for _, name := range []string{"MOGGY_SERVICE", "MOGGY_INSTANCE", "MOGGY_NODE", "MOGGY_ADDRESS", "NOMAD_ALLOC_ID", "NOMAD_ALLOC_INDEX", "NOMAD_JOB_NAME"} {
		line(name, os.Getenv(name))
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			line("IP", n.IP.String())
		}
	}
	line("RemoteAddr", r.RemoteAddr)
	var b strings.Builder
	_ = r.Write(&b) // to memory
	fmt.Fprintf(w, "\n%s", strings.ReplaceAll(b.String(), "\r\n", "\n"))
}
