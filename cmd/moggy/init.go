package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func newInitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init [NAME]",
		Short: "Write a commented fleet file to start from",
		Long: `Init writes fleet.hcl with one machine and a comment for each thing you may want
next. Your public SSH key from ~/.ssh is in it as the first operator's, if you
have one. Then put your machine's address in, and see what moggy would do with
it: moggy plan.

NAME is the fleet's name; without one it is the directory's. A file that exists
is never touched.`,
		Example: `  moggy init
  moggy init cats
  moggy init -f home/fleet.hcl cats`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(a.Files) != 1 {
				return hint.New("init writes one file", "moggy init -f FILE")
			}
			name, err := fleetName(args, a.Files[0])
			if err != nil {
				return err
			}
			return a.init(a.Files[0], name)
		},
	}
}

func (a *app) init(file string, name fleet.Name) error {
	op := ownKey()
	if err := createFile(file, config.Template(name, op)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return hint.New(file+": exists already, and was left alone", "moggy check -f %s reads it; moggy init -f FILE writes another", file)
		}
		return cli.PlainPathError(file, err)
	}
	with := "without an operator: no public key in ~/.ssh"
	if op != nil {
		with = fmt.Sprintf("with your key for the operator %s", op.Name)
	}
	fmt.Fprintf(a.Stderr, "%s: the fleet %s, %s.\nNext: put your machine's address in, then moggy check, then moggy plan.\n", file, name, with)
	return nil
}

// fleetName is the name asked for, or that of the file's directory.
func fleetName(args []string, file string) (fleet.Name, error) {
	if len(args) == 1 {
		name := config.Label(args[0])
		if name != args[0] {
			err := fmt.Errorf("%q is no name for a fleet: it takes a-z, 0-9 and -, with a letter first, 63 at most", args[0])
			if name != "" {
				err = hint.Wrap(err, "moggy init %s", name)
			}
			return "", err
		}
		return fleet.Name(name), nil
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	if name := config.Label(filepath.Base(dir)); name != "" {
		return fleet.Name(name), nil
	}
	return "fleet", nil
}

// createFile writes a file that must not exist yet.
func createFile(name string, content []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// ownKey is the user's public SSH key, if there is one that a fleet takes: the
// first of those ssh itself would try, then any.
func ownKey() *fleet.Operator {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	names := []string{"id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"}
	if entries, err := os.ReadDir(filepath.Join(home, ".ssh")); err == nil {
		for _, e := range entries { // sorted by name
			if strings.HasSuffix(e.Name(), ".pub") && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	for _, name := range names {
		content, err := cli.ReadFile(filepath.Join(home, ".ssh", name))
		if err != nil {
			continue
		}
		key, err := config.AuthorizedKey(string(content))
		if err != nil {
			continue
		}
		user, _, _ := strings.Cut(cli.Whoami(), "@")
		label := config.Label(user)
		if label == "" {
			label = "me"
		}
		return &fleet.Operator{Name: label, Key: key}
	}
	return nil
}
