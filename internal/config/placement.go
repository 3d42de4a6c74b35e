package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// volumes reads which directories outlive an instance.
func (f fields) volumes() []fleet.Volume {
	var out []fleet.Volume
	names, paths := make(map[string]hcl.Range), make(map[string]string)
	for _, entry := range f.entries("volumes", "a map from names to paths", exampleVolume) {
		at := entry.KeyExpr.Range()
		name, ok := f.key(entry.KeyExpr, "a volume's name", exampleVolume)
		if !ok {
			continue
		}
		f.d.checkName(at, fmt.Sprintf("%s: volume %s", f.b, source.Quoted(name)), name)
		if first, twice := names[name]; twice {
			f.wrong(at, "", "volume %s: there is one already at %s", source.Quoted(name), source.Place(first))
		}
		names[name] = at
		it, ok := f.textOf("volume "+source.Quoted(name)+": a path is a text", entry.ValueExpr)
		if !ok {
			continue
		}
		p := it.Value
		switch {
		case plain(p) != "":
			f.wrong(it.At, "", "volume %s: a path %s", source.Quoted(name), plain(p))
		case !path.IsAbs(p), path.Clean(p) != p, p == "/", strings.ContainsAny(p, ":, \t"):
			f.wrong(it.At, exampleVolume, "volume %s: %s is no absolute path that an instance can see it at", source.Quoted(name), source.Quoted(p))
		case paths[p] != "":
			f.wrong(it.At, "", "volume %s: volume %s is at %s already", source.Quoted(name), source.Quoted(paths[p]), p)
		}
		paths[p] = name
		out = append(out, fleet.Volume{Name: fleet.VolumeName(name), Path: p})
	}
	slices.SortFunc(out, func(a, b fleet.Volume) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}

// judgeServices reports what cannot be placed: more instances than nodes, data
// that would be left behind, and two who would listen on one port of one node.
func (d *decoder) judgeServices() {
	type door struct {
		node fleet.NodeName
		port uint16
	}
	taken := make(map[door]fleet.ServiceName)
	for _, s := range d.fleet.Services {
		f := d.services[s.Name]
		if !f.sound || s.Static != "" {
			continue
		}
		places := d.fleet.Places(s)
		if len(places) < s.Count {
			where := "in the fleet"
			if len(s.On) > 0 {
				where = "of those it may run on"
			}
			f.wrong(f.at("count"), fmt.Sprintf("count = %d", len(places)), "%d instances need as many nodes, and there is %d %s", s.Count, len(places), where)
		}
		f.judgeVolumes(s, places)
		if s.Port == 0 {
			continue
		}
		if s.Port == d.fleet.Port {
			f.wrong(f.at("port"), "take another", "port %d is the mesh's own", s.Port)
			continue
		}
		for _, n := range places {
			first, is := taken[door{n, s.Port}]
			if is {
				f.wrong(f.at("port"), "take another, or keep them apart with on = [...]", "service %q listens on port %d of node %q already", first, s.Port, n)
				break
			}
			taken[door{n, s.Port}] = s.Name
		}
	}
}

// judgeVolumes reports data that an instance would be moved away from: volumes
// are their node's.
func (f fields) judgeVolumes(s fleet.Service, places []fleet.NodeName) {
	if len(s.Volumes) == 0 || len(s.On) > 0 && len(f.d.fleet.Members(s.On)) == len(places) {
		return
	}
	on := make([]string, len(places))
	for i, n := range places {
		on[i] = refer("node", string(n))
	}
	f.wrong(f.at("volumes"), fmt.Sprintf("on = [%s]", strings.Join(on, ", ")), "a volume stays on its node: say on which %d it runs", s.Count)
}
