package cli

import "github.com/spf13/cobra"

// CompleteNode offers the names of the file's nodes to the shell.
func (a *App) CompleteNode(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	f, err := a.LoadFleet()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(f.Nodes))
	for _, n := range f.Nodes {
		names = append(names, string(n.Name)+"\t"+string(n.Site))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
