package cli

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"sync"

	"github.com/moggyfleet/moggy/internal/deploy"
	"github.com/moggyfleet/moggy/internal/deploy/cargo"
	transport "github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Deployment opens the fleet that the files describe. Whoever has it closes
// it, which ends the shared connections.
func (a *App) Deployment() (*deploy.Deployment, func(), error) {
	f, err := a.LoadFleet()
	if err != nil {
		return nil, nil, err
	}
	file, err := a.LoadLock(f)
	if err != nil {
		return nil, nil, err
	}
	d, done, err := a.NewDeployment(f, func(l *fleet.Lock) error { return a.SaveLock(file, l) })
	if err != nil {
		return nil, nil, err
	}
	return d, done, d.Open(file.Lock())
}

// NewDeployment is a deployment of the fleet that keeps its lock by save, and
// that is not opened yet. Whoever has it closes it.
func (a *App) NewDeployment(f *fleet.Fleet, save func(*fleet.Lock) error) (*deploy.Deployment, func(), error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	binaries, err := cargo.FindBinaries(exe)
	if err != nil {
		return nil, nil, err
	}
	programs, err := cargo.FindPrograms(filepath.Dir(a.Files[0]), f.Services)
	if err != nil {
		return nil, nil, err
	}
	sites, err := cargo.FindSites(filepath.Dir(a.Files[0]), f.Services)
	if err != nil {
		return nil, nil, err
	}
	engines := make(map[string]cargo.Binaries)
	if f.Scheduler == fleet.Nomad {
		if engines["nomad"], err = cargo.FindEngine("nomad", engineDirs(exe)...); err != nil {
			return nil, nil, err
		}
	}
	client, err := transport.New(filepath.Dir(a.Files[0]))
	if err != nil {
		return nil, nil, err
	}
	names := make([]string, 0, len(f.Nodes))
	for _, n := range f.Nodes {
		names = append(names, string(n.Name))
	}
	return &deploy.Deployment{
		Fleet: f, SSH: client, Binaries: binaries, Programs: programs, Sites: sites, Engines: engines, By: Whoami(), Version: a.Version,
		Commit:   sync.OnceValue(func() string { return commitOf(context.Background(), a.Files) }),
		Progress: a.Board(names...),
		Accept:   a.askHostKey(),
		Save:     save,
	}, client.Close, nil
}

// engineDirs are where builds of engines are sought: where scripts/engine.sh puts
// them, or beside moggy.
func engineDirs(exe string) []string {
	var dirs []string
	if cache := os.Getenv("MOGGY_CACHE"); cache != "" {
		dirs = append(dirs, filepath.Join(cache, "engines"))
	}
	return append(dirs, filepath.Join(filepath.Dir(exe), "engines"), "/var/cache/moggy/lab/engines")
}

// Whoami names the operator for those who find a node at work: user@machine.
func Whoami() string {
	name, machine := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		machine = h
	}
	return name + "@" + machine
}
