// Package authority keeps what a node has of the fleet's certificates and of the
// secrets that servers share: its own authority, whose key is made here and never
// leaves, and secrets by name, which only the operator's moggy takes from one
// server to another. Who may sign what is package pki's to know.
package authority

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/pki"
)

// Keys is the directory of a node's keys; only root reads it.
type Keys struct {
	Disk *disk.Disk
	Dir  string
}

// AuthorityFile is the name of the authority's certificate and key in Dir.
const AuthorityFile = "ca.pem"

// Make makes the authority where there is none, and binds the one that is there
// anew where it is bound to other names. It returns its certificate, DER.
func (k Keys) Make(c pki.Constraints, now time.Time) ([]byte, error) {
	have, err := k.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		have, err = pki.NewAuthority(rand.Reader, now, c)
	case err != nil:
	default:
		if _, err := pki.CheckAuthority(have.Cert.Raw, c, now); err == nil {
			return have.Cert.Raw, nil
		}
		have, err = have.Bound(rand.Reader, now, c)
	}
	if err != nil {
		return nil, err
	}
	text, err := have.Marshal()
	if err != nil {
		return nil, err
	}
	if err := k.Disk.Write(k.Dir+"/"+AuthorityFile, text); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return have.Cert.Raw, nil
}

func (k Keys) read() (*pki.Authority, error) {
	path := k.Dir + "/" + AuthorityFile
	text, err := os.ReadFile(k.Disk.Real(path))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a, err := pki.ParseAuthority(text)
	if err != nil {
		return nil, hint.Wrap(fmt.Errorf("authority: %s: %w", path, err),
			"move it away, and this node gets a new one at the next apply")
	}
	return a, nil
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 4096

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ErrOther is the cause where another secret of that name is there.
var ErrOther = errors.New("another secret is there")

// Secret is the secret of that name, nil where there is none.
func (k Keys) Secret(name string) ([]byte, error) {
	path, err := k.secret(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(k.Disk.Real(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Keep keeps a secret, read from r. One that is there is never replaced.
func (k Keys) Keep(name string, r io.Reader) error {
	path, err := k.secret(name)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	switch {
	case err != nil:
		return err
	case len(b) == 0 || len(b) > maxSecret:
		return fmt.Errorf("secret %s: %d bytes: from 1 to %d", name, len(b), maxSecret)
	}
	have, err := k.Secret(name)
	switch {
	case err != nil:
		return err
	case bytes.Equal(have, b):
		return nil
	case have != nil:
		return fmt.Errorf("secret %s: %w", name, ErrOther)
	}
	if err := k.Disk.Mkdir(k.Dir+"/shared", 0o700); err != nil {
		return err
	}
	return k.Disk.Write(path, b)
}

func (k Keys) secret(name string) (string, error) {
	if !nameForm.MatchString(name) {
		return "", fmt.Errorf("secret %.100q: not a DNS label", name)
	}
	return k.Dir + "/shared/" + name, nil
}
