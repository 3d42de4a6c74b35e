package labcmd

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/lab"
	"github.com/moggyfleet/moggy/internal/term"
)

func newStatusCommand(l *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the lab's machines, their addresses and faults",
		Long: `Status shows for every machine whether it is on, its own addresses, where others
see it come from, the kind of NAT it is behind, and the faults it suffers. What
the fleet itself says is in "moggy lab run -- moggy status".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			st, err := theLab.Status(cmd.Context())
			if err != nil {
				return err
			}
			if l.JSON {
				return l.PrintJSON(st)
			}
			return l.showStatus(st)
		},
	}
}

func (l *app) showStatus(st lab.Status) error {
	p := l.Palette(l.Stdout)
	on := 0
	t := term.Table{Indent: "  ", Head: []string{"NODE", "SITE", "STATE", "ADDRESSES", "SEEN AS", "NAT", "FAULTS"}}
	for _, n := range st.Nodes {
		state := p.Bad("off")
		if n.On {
			on++
			state = p.Good("on")
		}
		faults := p.Bad(strings.Join(n.Faults, ", "))
		t.Add(string(n.Node), string(n.Site), state, list(n.Inside), list(n.Seen), n.NAT, faults)
	}
	fmt.Fprintf(l.Stdout, "lab %s   %d of %d machines on\n\n", p.Strong(st.Name), on, len(st.Nodes))
	if err := t.Write(l.Stdout, p); err != nil {
		return err
	}
	servers := make([]string, 0, len(st.Servers))
	for _, s := range st.Servers {
		text := string(s.Server)
		if !s.On {
			text = p.Bad(text + " (off)")
		}
		servers = append(servers, text)
	}
	fmt.Fprintf(l.Stdout, "\n  in its internet: %s\n", strings.Join(servers, ", "))
	for _, h := range st.Hosts {
		fmt.Fprintf(l.Stdout, "  a stranger's view: moggy lab curl https://%s\n", h)
	}
	if !st.Whole {
		fmt.Fprintf(l.Stderr, "it is half-made: it is coming up, or a killed command left it; moggy lab down takes it away\n")
	}
	return nil
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "-"
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}
