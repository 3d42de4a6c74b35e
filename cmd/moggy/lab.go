package main

import "github.com/spf13/cobra"

func newLabCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "lab",
		Short: "The same fleet as real machines on this box, to rehearse on",
	}
}
