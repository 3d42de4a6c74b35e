// Package lock reads fleet.lock.hcl into a fleet.Lock, with every mistake in its
// place, and writes changes into the text without losing what it does not know.
// It opens no file, and knows nothing of fleet.hcl.
package lock

import (
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Version is the format of the lock this release writes.
const Version = 1

// File is fleet.lock.hcl: what it says, and its text, so that an update
// changes nothing else in it.
//
//	version    = 1
//	fleet      = "cats"
//	generation = 42
//
//	mesh {
//	  v4 = "10.77.0.0/16"
//	  v6 = "fd7a:6d6f:6767::/48"
//	}
//
//	node "cosmo" {
//	  v4         = "10.77.0.1"
//	  v6         = "fd7a:6d6f:6767::1"
//	  mesh_key   = "..."
//	  arch       = "amd64"
//	  generation = 42
//	  host_keys = [
//	    "ssh-ed25519 AAAA...",
//	  ]
//	}
//
// A node whose mesh key is being rotated has next_key, old_key or gone_key as well;
// one that has an authority of its own for certificates has ca, in base64.
type File struct {
	text  source.Text
	lock  *fleet.Lock
	top   map[string]span // the attributes outside of blocks
	mesh  *block
	nodes []block   // in the order of the file
	name  hcl.Range // where it says whose it is
}

// span is a part of the text, in bytes; the end is exclusive.
type span struct{ start, end int }

func spanOf(r hcl.Range) span { return span{r.Start.Byte, r.End.Byte} }

// block is where one block of the lock stands.
type block struct {
	name  fleet.NodeName
	whole span // from its type to its closing brace
	brace span // what stands between the braces
	attrs map[string]attributeSpan
}

type attributeSpan struct {
	whole, value span
}

const header = `# What moggy derived once and keeps: addresses, public keys, generation numbers.
# moggy writes this file; commit it beside the fleet's. It holds no secrets.

`

// New returns the lock of a fleet that has none yet, to be written to the
// file of that name.
func New(name string) *File {
	return &File{text: source.Text{Name: name}, lock: &fleet.Lock{Version: Version}}
}

// Name is the file's name, as it was given.
func (l *File) Name() string { return l.text.Name }

// Text is the file's content. It is empty in a new one.
func (l *File) Text() []byte { return slices.Clone(l.text.Content) }

// Lock returns what the file says. The caller may change it.
func (l *File) Lock() *fleet.Lock { return l.lock.Clone() }

// Parse reads a lock. Where one of the diagnostics is a mistake there is
// no lock. Blocks and attributes that are not known are kept and passed over:
// a later release may have written them.
func Parse(src source.Text) (*File, source.Diagnostics) {
	return newReader(src).parse()
}

// Check reports a lock that is not this fleet's.
func (l *File) Check(f *fleet.Fleet) source.Diagnostics {
	if l.lock.Fleet == "" || l.lock.Fleet == f.Name {
		return nil
	}
	r := source.NewReport([]source.Text{l.text})
	r.Mistake(l.name, "a renamed fleet needs its new name here too", "this is the lock of the fleet %q, and the file describes %q", l.lock.Fleet, f.Name)
	return r.Finish()
}
