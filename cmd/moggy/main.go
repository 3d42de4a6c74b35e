// Command moggy is the operator's tool and, as subcommands that systemd runs,
// the node's daemons. This package only wires: one file per subcommand, and
// those that have subcommands themselves in rooms of their own.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand(newApp(stdin, stdout, stderr))
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code cli.ExitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	cli.Report(stderr, err)
	return 1
}
