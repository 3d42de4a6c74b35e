package labcmd

import (
	"math"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// strangers is where curl is run unless the user says otherwise.
const strangers = "internet"

func newCurlCommand(l *app) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "curl [--from internet|SITE|NODE] [--] URL...",
		Short: "Look at a website as a stranger in the lab's internet sees it",
		Long: `Curl runs this box's curl in the lab's internet, or in the LAN of a site: with the
lab's resolver, and trusting whom everybody there trusts. With a node it runs the
machine's own. What follows the first URL, or "--", is given to curl as it is. The
exit code is curl's.`,
		Example: `  moggy lab curl https://cats.example
  moggy lab curl --from madrid -- -I https://cats.example
  moggy lab curl --from bianco https://cats.example`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			theLab, err := l.open()
			if err != nil {
				return err
			}
			f, err := theLab.Fleet()
			if err != nil {
				return err
			}
			argv := append([]string{"curl", "--silent", "--show-error"}, args...)
			if _, ok := f.Node(fleet.NodeName(from)); ok {
				return passed(theLab.Exec(cmd.Context(), fleet.NodeName(from), argv, l.stdio()))
			}
			site := fleet.SiteName(from)
			if _, ok := f.Site(site); !ok && from == strangers {
				site = ""
			}
			return passed(theLab.Run(cmd.Context(), site, argv, l.stdio()))
		},
	}
	cmd.Flags().StringVar(&from, "from", strangers, "where: internet, a `site`, or a node")
	// It cannot fail: the flag is the one above.
	_ = cmd.RegisterFlagCompletionFunc("from", l.completeNode(math.MaxInt, true))
	cmd.Flags().SetInterspersed(false)
	return cmd
}
