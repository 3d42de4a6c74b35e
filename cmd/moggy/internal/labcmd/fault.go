package labcmd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/lab/topology"
)

func newFailCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "fail NODE|SERVER...",
		Short: "Pull the plug on a machine, or on a server of the internet",
		Long: `Fail kills a machine as a power cut does, and unplugs its cable. Its disk stays
as it was; "moggy lab heal NODE" boots it again from there.

The servers of the lab's internet fail by their names, for everybody: "packages",
"dns", "registry" (of container images, under all their names) and "acme" (the
certificate authority). "moggy lab heal SERVER" puts one back.`,
		Example: `  moggy lab fail cosmo
  moggy lab fail registry`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: l.completeNode(math.MaxInt, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			for _, node := range args {
				if err := theLab.Fail(cmd.Context(), node); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newHealCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "heal A [B]",
		Short: "Undo faults: boot a machine again, mend a path",
		Long: `Heal with one name, a node's or a site's, undoes every cut and loss it is part
of and boots the machines there that are off. With two it mends what is between
them. A server of the internet it puts back.`,
		Example: `  moggy lab heal cosmo
  moggy lab heal london madrid`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: l.completeNode(2, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			if len(args) == 2 {
				return theLab.HealBetween(cmd.Context(), args[0], args[1])
			}
			return theLab.Heal(cmd.Context(), args[0], l.Board())
		},
	}
}

func newCutCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cut A [B]",
		Short: "Drop every packet between two nodes or sites",
		Long: `Cut drops what two nodes or sites send each other, silently and both ways; what
they send others, and what others pass on for them, still arrives. With one name
it drops everything that node or site sends or is sent, as a dead line does.
"operator" names the operator's own machine in the lab's internet.`,
		Example: `  moggy lab cut ari cosmo
  moggy lab cut madrid
  moggy lab cut operator miki`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: l.completeNode(2, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.Lose(cmd.Context(), args[0], second(args), topology.Whole)
		},
	}
}

func second(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[1]
}

func newLossCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "loss A [B] PERCENT",
		Short: "Drop some of the packets between two nodes or sites",
		Long: `Loss drops that part of what two nodes or sites send each other, at random, each
way; with one name, of everything that one sends or is sent. 0% ends it.`,
		Example: `  moggy lab loss ari cosmo 10%
  moggy lab loss madrid 2.5%`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: l.completeNode(2, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			permille, err := parsePercent(args[len(args)-1])
			if err != nil {
				return err
			}
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.Lose(cmd.Context(), args[0], second(args[:len(args)-1]), permille)
		},
	}
}

func newDelayCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "delay NODE|SITE DURATION",
		Short: "Hold every packet of a node or a site for a while",
		Long: `Delay holds every packet that a node or a site sends to or gets from beyond its
site's router for that long, each way, in the order they came. 0 ends it, and lets
go at once of those that are held. A node's delay counts more than its site's.`,
		Example: `  moggy lab delay london 300ms
  moggy lab delay london 0`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: l.completeNode(1, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[1])
			if err != nil {
				return fmt.Errorf("%q: not a duration such as 300ms", args[1])
			}
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.Delay(cmd.Context(), args[0], d)
		},
	}
}

// parsePercent reads "10%", "2.5 %" or "10" as thousandths.
func parsePercent(s string) (int, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "%")), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 100 {
		return 0, fmt.Errorf("%q: not a percentage from 0%% to 100%%", s)
	}
	return int(math.Round(v * topology.Whole / 100)), nil
}

func newNATCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "nat NODE|SITE symmetric|cone",
		Short: "Change what kind of NAT a node is behind",
		Long: `Nat changes how a node's home router translates: "cone" keeps the source port
for every peer, as most do, "symmetric" takes another for each, so that no peer
can guess it. What the router knew of connections it forgets.`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{lab.Symmetric, lab.Cone}, cobra.ShellCompDirectiveNoFileComp
			}
			return l.completeNode(1, true)(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			return theLab.NAT(cmd.Context(), args[0], args[1])
		},
	}
}
