package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/deploy"
	transport "github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// deployment opens the fleet that the files describe. Whoever has it closes
// it, which ends the shared connections.
func (a *app) deployment() (*deploy.Deployment, func(), error) {
	f, err := a.loadFleet()
	if err != nil {
		return nil, nil, err
	}
	file, err := a.loadLock(f)
	if err != nil {
		return nil, nil, err
	}
	d, done, err := a.open(f, func(l *fleet.Lock) error { return a.saveLock(file, l) })
	if err != nil {
		return nil, nil, err
	}
	return d, done, d.Open(file.Lock())
}

// open makes a deployment of the fleet that keeps its lock by save, and that is
// not opened yet.
func (a *app) open(f *fleet.Fleet, save func(*fleet.Lock) error) (*deploy.Deployment, func(), error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	binaries, err := deploy.FindBinaries(exe)
	if err != nil {
		return nil, nil, err
	}
	client, err := transport.New(filepath.Dir(a.files[0]))
	if err != nil {
		return nil, nil, err
	}
	names := make([]string, 0, len(f.Nodes))
	for _, n := range f.Nodes {
		names = append(names, string(n.Name))
	}
	return &deploy.Deployment{
		Fleet: f, SSH: client, Binaries: binaries, By: whoami(), Version: version, Commit: commitOf(context.Background(), a.files),
		Progress: a.board(names...),
		Accept:   a.askHostKey(),
		Save:     save,
	}, client.Close, nil
}

// whoami names the operator for those who find a node at work: user@machine.
func whoami() string {
	name, machine := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		machine = h
	}
	return name + "@" + machine
}

// askHostKey asks about one key at a time, however many nodes wait.
func (a *app) askHostKey() func(fleet.NodeName, string) (bool, error) {
	var mu sync.Mutex
	return func(node fleet.NodeName, line string) (bool, error) {
		if a.acceptNew {
			return true, nil
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return false, err
		}
		mu.Lock()
		defer mu.Unlock()
		return a.confirm(fmt.Sprintf("%s shows %s %s, seen for the first time. Is it right?", node, key.Type(), ssh.FingerprintSHA256(key)), "--accept-new")
	}
}

// confirm asks a question that yes or no answers. Where nobody can be asked,
// the error names the flag that would have answered.
func (a *app) confirm(question, flag string) (bool, error) {
	if in, ok := a.stdin.(*os.File); ok {
		if _, tty := terminal(in); !tty {
			return false, hint.New("there is nobody to ask: "+question, "say yes beforehand: %s", flag)
		}
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && line == "" {
		return false, hint.Wrap(errors.New("no answer"), "say yes beforehand: %s", flag)
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// interrupted turns the end of a context into what the operator did.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return hint.New("interrupted", "every node is on a whole generation; go on with: moggy apply")
	}
	return err
}
