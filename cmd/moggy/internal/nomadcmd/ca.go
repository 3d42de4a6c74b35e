package nomadcmd

import (
	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/pki"
)

// NewCA is moggy ca.
func NewCA(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "Print the fleet's own certificate authorities, for browsers that shall trust them",
		Long: `Ca prints the authorities of the ingress nodes, as PEM: who imports them trusts
what those nodes serve under hosts that only the mesh sees. Each is bound by
name constraints to the fleet's domain and its node's own name: it can vouch for
nothing else. They are public; the keys are on the nodes and nowhere else.`,
		Example: `  moggy ca > fleet.pem`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := a.LoadFleet()
			if err != nil {
				return err
			}
			file, err := a.LoadLock(f)
			if err != nil {
				return err
			}
			roles, some := f.Roles(), false
			for _, n := range file.Lock().Nodes {
				if !roles[n.Name].Ingress || len(n.CA) == 0 {
					continue
				}
				some = true
				if _, err := a.Stdout.Write(pki.CertPEM(n.CA)); err != nil {
					return err
				}
			}
			if !some {
				return hint.New("no ingress node has an authority of its own yet", "there is one where a service is exposed to the mesh, or on Nomad, after moggy apply")
			}
			return nil
		},
	}
}
