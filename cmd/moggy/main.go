// Command moggy is the operator's tool and, as subcommands that systemd runs,
// the node's daemons. This package only wires: one file per subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/moggyfleet/moggy/internal/hint"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitCode is an error that is no mistake: it only sets the exit code.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand(newApp(stdin, stdout, stderr))
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	report(stderr, err)
	return 1
}

// report prints an error, a line for each that it joins, then its hints, each
// once.
func report(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "moggy: error: %s\n", strings.TrimRight(line, "\n"))
	}
	seen := make(map[string]bool)
	for _, h := range hint.All(err) {
		if !seen[h] {
			seen[h] = true
			fmt.Fprintf(w, "moggy: hint:  %s\n", h)
		}
	}
}
