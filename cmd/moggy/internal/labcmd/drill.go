package labcmd

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/term"
)

func newDrillCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drill [NODE...]",
		Short: "Fail each node in turn and measure what kept working",
		Long: `Drill pulls the plug on each node in turn, or on the ones given, while every
machine pings every other over the mesh ten times a second, and boots it again
before the next. It prints for how long any two of the others did not reach each
other, and how long the failed one took to be back. The fleet must be applied.

Exit codes: 0 all found together again every time, 1 some never did, or an error.`,
		Example: `  moggy lab drill
  moggy lab drill cosmo --json`,
		ValidArgsFunction: l.completeNode(math.MaxInt, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			addrs, err := l.meshAddresses(theLab)
			if err != nil {
				return err
			}
			var only []fleet.NodeName
			for _, a := range args {
				only = append(only, fleet.NodeName(a))
			}
			d, err := theLab.Drill(cmd.Context(), addrs, only, l.Board(args...))
			if err != nil {
				return err
			}
			if err := l.showDrill(d); err != nil {
				return err
			}
			if !d.Passed() {
				return cli.ExitCode(1)
			}
			return nil
		},
	}
}

// meshAddresses are those of the lab's nodes that the lock knows.
func (l *app) meshAddresses(theLab *lab.Lab) (map[fleet.NodeName]netip.Addr, error) {
	f, err := theLab.Fleet()
	if err != nil {
		return nil, err
	}
	file, err := l.LoadLock(f)
	if err != nil {
		return nil, err
	}
	lock := file.Lock()
	addrs := map[fleet.NodeName]netip.Addr{}
	for _, n := range f.Nodes {
		known := lock.Node(n.Name)
		switch {
		case known.V4.IsValid():
			addrs[n.Name] = known.V4
		case known.V6.IsValid():
			addrs[n.Name] = known.V6
		default:
			return nil, hint.New(fmt.Sprintf("node %s has no mesh address in %s yet", n.Name, file.Name()), "moggy lab run -- moggy apply")
		}
	}
	return addrs, nil
}

func (l *app) showDrill(d lab.Drill) error {
	if l.JSON {
		return l.PrintJSON(d)
	}
	p := l.Palette(l.Stdout)
	t := term.Table{Head: []string{"FAILED", "THE OTHERS' PAIRS", "LONGEST SILENCE", "OF", "BACK AFTER"}}
	var needed []string
	var longest lab.Seconds
	for _, r := range d.Rounds {
		pairs := p.Good(fmt.Sprintf("all %d kept", r.Pairs))
		if len(r.Lost) > 0 {
			pairs = p.Bad(fmt.Sprintf("%d of %d lost, such as %s", len(r.Lost), r.Pairs, r.Lost[0]))
			needed = append(needed, string(r.Node))
		}
		silence := "none"
		if r.Silence > 0 {
			silence = seconds(r.Silence)
		}
		longest = max(longest, r.Silence)
		back := seconds(r.Back)
		if !r.Returned {
			back = p.Bad("never")
		}
		t.Add(string(r.Node), pairs, silence, r.Worst, back)
	}
	if err := t.Write(l.Stdout, p); err != nil {
		return err
	}
	switch {
	case len(needed) == 1:
		fmt.Fprintf(l.Stdout, "\n%s is one that others cannot do without.\n", needed[0])
	case len(needed) > 1:
		fmt.Fprintf(l.Stdout, "\n%s are ones that others cannot do without.\n", strings.Join(needed, ", "))
	case longest == 0:
		fmt.Fprintf(l.Stdout, "\nWhichever one failed, no two others were apart.\n")
	default:
		fmt.Fprintf(l.Stdout, "\nWhichever one failed, no two others were apart for longer than %s.\n", seconds(longest))
	}
	return nil
}

func seconds(s lab.Seconds) string { return fmt.Sprintf("%.1f s", time.Duration(s).Seconds()) }
