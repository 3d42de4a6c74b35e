// Package serve is what the programs of the lab's images have in common: they
// listen where PORT says, say whether they are well, and end when they are told
// to, after they have answered whom they were answering.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Version is the image's tag. What comes after a dash makes a bad version of
// it: "1.1-crash" ends at once, "1.1-sick" is never well, "1.1-slow" takes ten
// seconds until it listens.
func Version() (version, flaw string) {
	version, flaw, _ = strings.Cut(os.Getenv("VERSION"), "-")
	return version, flaw
}

// Run serves h, and /healthz beside it, until a signal ends it.
func Run(h http.Handler) error {
	version, flaw := Version()
	if flaw == "crash" {
		return fmt.Errorf("version %s-crash: crashing, as it was made to", version)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if flaw == "slow" {
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return nil
		}
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if flaw == "sick" {
			http.Error(w, "sick, as it was made to be", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("/", h)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	fmt.Printf("version %s: listening on %s\n", os.Getenv("VERSION"), l.Addr())
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ended <- s.Shutdown(late)
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

// Main runs the program and says why it ended.
func Main(h http.Handler, err error) {
	if err == nil {
		err = Run(h)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
