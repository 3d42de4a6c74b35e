package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/cmd/moggy/internal/nomadcmd"
	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/plan"
	"github.com/moggyfleet/moggy/internal/plan/rollout"
	"github.com/moggyfleet/moggy/internal/publicdns"
)

// observeWithin is how long one node has to answer a plan.
const observeWithin = 10 * time.Second

// exitChanges is what plan ends with when there is something to do.
const exitChanges cli.ExitCode = 2

func newPlanCommand(a *app) *cobra.Command {
	var noDiff bool
	var out string
	f := applyFlags{soak: rollout.DefaultSoak}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what would change, and what one failure would stop",
		Long: `Plan asks every node how it is, compares that with the fleet's file, and shows
per node what an apply would change: files with their differences, units,
packages. Then it says what the loss of any node, any site, or any two nodes
would stop, with the line of the file that would mend it.

It changes nothing, neither on the nodes nor beside the file. With --out it
writes down what was decided and on which grounds, as digests without any
content: moggy apply FILE carries out that and nothing else, and is refused when
anything moved on meanwhile.

Exit codes: 0 nothing to do, 1 an error, 2 there are changes.`,
		Example: `  moggy plan
  moggy plan --no-diff
  moggy plan --out friday.plan && moggy apply friday.plan
  moggy plan --json | jq '.nodes[] | select(.action != "none")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, done, err := a.Deployment()
			if err != nil {
				return err
			}
			defer done()
			seen, err := d.Observe(cmd.Context(), observeWithin)
			if err != nil {
				return err
			}
			o := f.options()
			p, err := d.Plan(cmd.Context(), seen, o)
			if err != nil {
				return err
			}
			p.Names = namesOf(cmd.Context(), d.Fleet)
			if err := a.showPlan(p, !noDiff); err != nil {
				return err
			}
			if out != "" {
				if err := a.savePlan(out, d, p, o); err != nil {
					return err
				}
			}
			jobs, err := nomadcmd.Plan(cmd.Context(), a.App, d, p.Changes(), !noDiff)
			if err != nil {
				return err
			}
			if p.Changes() || jobs {
				return exitChanges
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noDiff, "no-diff", false, "name the files that change, without their differences")
	cmd.Flags().StringVar(&out, "out", "", "keep what was decided in this `file`, for moggy apply FILE")
	a.nodeFlag(cmd, &f.nodes)
	return cmd
}

// namesOf asks the public DNS for the fleet's hosts, and says what it lacks.
func namesOf(ctx context.Context, f *fleet.Fleet) []plan.NameChange {
	records := f.Records()
	names := make([]string, len(records))
	for i, r := range records {
		names[i] = r.Name
	}
	return plan.Names(records, publicdns.Look(ctx, names))
}

func (a *app) showPlan(p *plan.Plan, diffs bool) error {
	if a.JSON {
		return a.PrintJSON(p.Document())
	}
	return p.Write(a.Stdout, a.Palette(a.Stdout), diffs)
}

// fingerprint is what the plan depends on, as it is now.
func (a *app) fingerprint(d *deploy.Deployment, p *plan.Plan, o deploy.Options) (plan.Saved, error) {
	s := p.Fingerprint()
	s.Only = o.Only
	s.Binaries = make(map[string]fleet.Digest, len(d.Binaries))
	for arch, b := range d.Binaries {
		s.Binaries[arch] = b.Digest
	}
	sources, err := a.ReadSources()
	if err != nil {
		return s, err
	}
	var text bytes.Buffer
	for _, src := range sources {
		fmt.Fprintf(&text, "%d\n", len(src.Content)) // two files are not one with both texts
		text.Write(src.Content)
	}
	s.File = fleet.DigestOf(text.Bytes())
	lock, err := cli.ReadFile(cli.LockName(a.Files[0]))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s.Lock = fleet.DigestOf(lock)
	return s, nil
}

func (a *app) savePlan(file string, d *deploy.Deployment, p *plan.Plan, o deploy.Options) error {
	s, err := a.fingerprint(d, p, o)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		return err
	}
	if err := renameio.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return cli.PlainPathError(file, err)
	}
	fmt.Fprintf(a.Stderr, "Saved. Next: moggy apply %s\n", file)
	return nil
}

// compareSaved is the error of a saved plan that does not hold any more.
func (a *app) compareSaved(file string, d *deploy.Deployment, p *plan.Plan, o deploy.Options) error {
	b, err := readSaved(file)
	if err != nil {
		return err
	}
	s, err := plan.ParseSaved(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	now, err := a.fingerprint(d, p, o)
	if err != nil {
		return err
	}
	if moved := s.Moved(now); len(moved) > 0 {
		return hint.New(fmt.Sprintf("%s does not hold any more: %s", file, strings.Join(moved, "; ")),
			"look at it anew: moggy plan --out %s", file)
	}
	return nil
}

func readSaved(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, hint.Wrap(cli.PlainPathError(file, err), "moggy plan --out %s makes it", file)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, plan.MaxSaved+1))
	if err != nil {
		return nil, cli.PlainPathError(file, err)
	}
	return b, nil
}
