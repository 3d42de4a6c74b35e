// Package config turns fleet.hcl into a fleet.Fleet and fleet.lock.hcl into a
// fleet.Lock and back, and reports every mistake in them at once, with its
// place. It opens no file: texts come in and go out as bytes.
package config

import "github.com/moggyfleet/moggy/internal/fleet"

// Source is one file's text, under the name its mistakes are reported with.
type Source struct {
	Name    string
	Content []byte
}

// MaxSize is the largest file that is read, in bytes. A fleet of 10,000 nodes
// takes about a tenth of it.
const MaxSize = 10 << 20

// Parse reads the fleet that the sources describe together. The diagnostics
// are in the order of the sources, then of lines. Where one of them is a
// mistake there is no fleet; warnings alone do not prevent one.
func Parse(sources []Source) (*fleet.Fleet, Diagnostics) {
	r := newReport(sources)
	d := newDecoder(r)
	for _, t := range r.texts {
		d.read(t)
	}
	d.decode()
	d.judge()
	list := r.finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return d.fleet, list
}
