// Package cli is what the subcommands of moggy share: streams and flags,
// screens and questions, the fleet's files, and how a command ends. What a
// subcommand does is in the subcommand.
package cli

import "io"

// App is what every subcommand is given: where to read and write, and the
// flags they share.
type App struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	Files []string // --file: the fleet's description
	JSON  bool     // --json
	Plain bool     // --plain: no live screen

	AcceptNew bool // --accept-new: take unknown host keys as they come

	Version string // of this moggy
}

// New is the app of a moggy of that version.
func New(version string, stdin io.Reader, stdout, stderr io.Writer) *App {
	return &App{Version: version, Stdin: stdin, Stdout: stdout, Stderr: stderr}
}
