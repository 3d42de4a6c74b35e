package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/hint"
)

func newFmtCommand(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt [FILE... | -]",
		Short: "Indent and align the fleet's file",
		Long: `Fmt gives files the one form that HCL is written in: two spaces for each
level, equals signs under each other. Only blanks change. It prints the names of
the files it changed. With a syntax mistake in one it changes none.

Without a name it takes the fleet's file. With - it reads stdin and writes
stdout, for an editor.

Exit codes: 0 done, 1 a mistake, or with --check a file that is not in form.`,
		Example: `  moggy fmt
  moggy fmt --check *.hcl      # in CI: list what is not in form
  moggy fmt - <fleet.hcl       # from an editor`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "-" {
				return a.formatStdin(check)
			}
			if len(args) == 0 {
				args = a.Files
			}
			return a.format(args, check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; list the files that are not in form, and fail if there is one")
	return cmd
}

// format formats files: all of them, or with a mistake in one of them none.
func (a *app) format(names []string, check bool) error {
	changed := []string{}
	texts := make(map[string][]byte)
	var diags source.Diagnostics
	for _, name := range names {
		content, err := cli.ReadFile(name)
		if err != nil {
			return err
		}
		text, found := config.Format(source.Text{Name: name, Content: content})
		diags = append(diags, found...)
		if _, twice := texts[name]; !twice && !bytes.Equal(text, content) {
			changed = append(changed, name)
			texts[name] = text
		}
	}
	if err := a.Tell(diags); err != nil {
		return err
	}
	if !check {
		for _, name := range changed {
			if err := cli.ReplaceFile(name, texts[name]); err != nil {
				return err
			}
		}
	}
	if a.JSON {
		if err := a.PrintJSON(map[string]any{"version": 1, "changed": changed}); err != nil {
			return err
		}
	} else {
		for _, name := range changed {
			if _, err := fmt.Fprintln(a.Stdout, name); err != nil {
				return err
			}
		}
	}
	if check && len(changed) > 0 {
		return cli.ExitCode(1)
	}
	return nil
}

func (a *app) formatStdin(check bool) error {
	content, err := io.ReadAll(io.LimitReader(a.Stdin, source.MaxSize+1))
	if err != nil {
		return hint.Wrap(err, "give the text on stdin: moggy fmt - <FILE")
	}
	text, diags := config.Format(source.Text{Name: "stdin", Content: content})
	if err := a.Tell(diags); err != nil {
		return err
	}
	if check {
		if !bytes.Equal(text, content) {
			return cli.ExitCode(1)
		}
		return nil
	}
	_, err = a.Stdout.Write(text)
	return err
}
