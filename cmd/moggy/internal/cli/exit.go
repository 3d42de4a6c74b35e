package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/moggyfleet/moggy/internal/hint"
)

// ExitCode is an error that is no mistake: it only sets the exit code.
type ExitCode int

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// ExitInterrupted is what a shell makes of a Ctrl-C: 128 and SIGINT.
const ExitInterrupted ExitCode = 130

// Report prints an error, a line for each that it joins, then its hints, each
// once.
func Report(w io.Writer, err error) {
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

// Interrupted turns the end of a context into what the operator did.
func Interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return hint.New("interrupted", "every node is on a whole generation; go on with: moggy apply")
	}
	return err
}
