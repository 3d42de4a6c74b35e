package cli

import "github.com/spf13/cobra"

// CompleteSubject offers the names of the file's services and nodes to the shell.
func (a *App) CompleteSubject(cmd *cobra.Command, args []string, written string) ([]string, cobra.ShellCompDirective) {
	nodes, directive := a.CompleteNode(cmd, args, written)
	f, err := a.LoadFleet()
	if err != nil || len(args) > 0 {
		return nodes, directive
	}
	var names []string
	for _, s := range f.Services {
		names = append(names, string(s.Name)+"\tservice")
	}
	return append(names, nodes...), directive
}

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
