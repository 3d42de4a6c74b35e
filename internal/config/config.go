// Package config is the language of fleet.hcl: it turns the file into a
// fleet.Fleet, and reports every mistake in it at once, with its place. It opens
// no file: texts come in and go out as bytes. The lock beside the file is read
// and written in package lock; what both have in common is in package source.
package config

import (
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Parse reads the fleet that the sources describe together. The diagnostics
// are in the order of the sources, then of lines. Where one of them is a
// mistake there is no fleet; warnings alone do not prevent one.
func Parse(sources []source.Text) (*fleet.Fleet, source.Diagnostics) {
	r := source.NewReport(sources)
	d := newDecoder(r)
	for _, t := range r.Texts {
		d.read(t)
	}
	d.decode()
	d.judge()
	list := r.Finish()
	if list.Mistakes() > 0 {
		return nil, list
	}
	return d.fleet, list
}
