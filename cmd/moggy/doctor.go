package main

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/deploy"
	transport "github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/doctor"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [NODE...]",
		Short: "Find what is wrong, and say what to do about it",
		Long: `Doctor looks at all that must be true for you to reach and change a node, and
for the node to work: your ssh and keys, names, the way to its sshd (straight, or
through a hub), its host key, logging in, root, systemd, its moggy; then its
clock, kernel, disk, memory, generation, ports, units, and the mesh. Probes run
side by side, each as soon as what it needs has passed; where that failed it is
skipped, so that what failed is a cause and no symptom.

The verdict names the first cause and one next command. With names it looks at
those nodes alone, and of one it shows every probe. It changes nothing.

Exit codes: 0 nothing failed (there may be warnings), 1 something did.`,
		Example: `  moggy doctor
  moggy doctor bianco
  moggy doctor --json | jq '.verdict'`,
		ValidArgsFunction: a.CompleteNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, names, done, err := a.doctor(args)
			if err != nil {
				return err
			}
			defer done()
			report, err := d.Run(cmd.Context(), names)
			if err != nil {
				return err
			}
			if a.JSON {
				err = a.PrintJSON(report)
			} else {
				err = report.Write(a.Stdout, a.Palette(a.Stdout))
			}
			if err == nil && !report.Healthy {
				return cli.ExitCode(1)
			}
			return err
		},
	}
}

// doctor prepares the probes. What keeps it from being prepared is a finding
// itself: mistakes in the files have been told by then.
func (a *app) doctor(args []string) (*deploy.Doctor, []fleet.NodeName, func(), error) {
	d := &deploy.Doctor{
		Fleet: &fleet.Fleet{}, Lock: &fleet.Lock{}, Moggy: version, By: cli.Whoami(), Now: time.Now,
		Broken: make(map[doctor.Name]doctor.Result),
	}
	broken := func(name doctor.Name, next, text string) {
		d.Broken[name] = doctor.Result{Status: doctor.Failed, Text: text, Next: next}
	}
	f, err := a.LoadFleet()
	if err == nil {
		d.Fleet = f
		file, lockErr := a.LoadLock(f)
		if err = lockErr; err == nil {
			d.Lock = file.Lock()
		}
	}
	if err != nil {
		text, next := err.Error(), "moggy check"
		if _, told := err.(cli.ExitCode); told { //nolint:errorlint // it is never wrapped
			text = "the fleet's file, or its lock, has mistakes"
		}
		if hints := hint.All(err); len(hints) > 0 {
			next = hints[0]
		}
		broken(doctor.Files, next, text)
	}
	done := func() {}
	if d.SSH, err = transport.New(filepath.Dir(a.Files[0])); err != nil {
		next := ""
		if hints := hint.All(err); len(hints) > 0 {
			next = hints[0]
		}
		broken(doctor.Config, next, "what ssh is told cannot be written: "+err.Error())
	} else {
		done = d.SSH.Close
	}
	var names []fleet.NodeName
	var shown []string
	for _, arg := range args {
		if _, ok := d.Fleet.Node(fleet.NodeName(arg)); !ok && len(d.Fleet.Nodes) > 0 {
			done()
			return nil, nil, nil, hint.New("there is no node "+arg+" in the file", "moggy status lists them")
		}
		names, shown = append(names, fleet.NodeName(arg)), append(shown, arg)
	}
	if len(names) == 0 {
		for _, n := range d.Fleet.Nodes {
			shown = append(shown, string(n.Name))
		}
	}
	d.Progress = a.Board(shown...)
	return d, names, done, nil
}
