package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// ServiceName is a service's name, a DNS label, unique in the fleet.
type ServiceName string

const (
	unitPrefix = "moggy-service-"
	unitSuffix = ".service"
)

// Unit is the systemd unit that runs an instance of the service.
func (s ServiceName) Unit() string { return unitPrefix + string(s) + unitSuffix }

// ServiceOf is the service that the unit runs an instance of; false where it runs
// none.
func ServiceOf(unit string) (ServiceName, bool) {
	name, is := strings.CutPrefix(unit, unitPrefix)
	name, ends := strings.CutSuffix(name, unitSuffix)
	return ServiceName(name), is && ends
}

// Service is a program that runs on some of the nodes, in Count instances; or a
// folder that the ingress nodes serve. Exactly one of Exec, Image and Static is
// set.
type Service struct {
	Name ServiceName
	// Exec is the program: an absolute path on the node, or one that begins with
	// "./" and lies beside the fleet's file, from where it is brought.
	Exec string
	// Image is a container image by its full name: registry, path, and a tag or
	// a digest.
	Image string
	// Static is a folder beside the fleet's file, "./" in front. It has no
	// instances, port or health: every ingress node has it.
	Static  string
	Args    []string
	Env     []Variable // in the order of the file
	Port    uint16     // TCP, on the mesh; 0: it listens on none
	Count   int        // at least 1; 0 for Static
	On      []Party    // where it may run; none: on any node
	Memory  uint64     // bytes that one instance may take; 0: as much as there is
	Volumes []Volume   // sorted by name; with some, it may run on Count nodes and no other
	Health  Health
	Expose  []Route // in the order of the file
}

// Local says whether the program is brought to the nodes.
func (s Service) Local() bool { return strings.HasPrefix(s.Exec, "./") }

// VolumeName is a volume's name, a DNS label, unique in its service.
type VolumeName string

// Volume is a directory of a node that outlives an instance.
type Volume struct {
	Name VolumeName
	Path string // where the instance sees it, absolute
}

// Route leads requests to a service: those for Host whose path begins with Path,
// segment by segment. The longest Path wins.
type Route struct {
	Host string // lower case, the fleet's domain or a name under it
	Path string // "/", or "/" and segments without "/" at the end
	To   Audience
}

// Audience is who may use a route.
type Audience string

// The audiences.
const (
	Public Audience = "public" // everybody
	Mesh   Audience = "mesh"   // who comes over the mesh
)

// Variable is one of a service's environment.
type Variable struct{ Name, Value string }

// HealthKind says what is asked of an instance.
type HealthKind string

// The kinds of questions.
const (
	HealthNone HealthKind = "none" // it is well while it runs
	HealthTCP  HealthKind = "tcp"  // its port takes connections
	HealthHTTP HealthKind = "http" // its port answers GET Path with a status from 200 to 399
)

// Health says when an instance is well.
type Health struct {
	Kind HealthKind
	Path string // of HealthHTTP
}

// Service returns the service of that name.
func (f *Fleet) Service(name ServiceName) (Service, bool) {
	i := slices.IndexFunc(f.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return f.Services[i], true
}

// Candidates are the nodes that the service's instances may run on, in the order
// of the file.
func (f *Fleet) Candidates(s Service) []Node {
	if len(s.On) > 0 {
		return f.Members(s.On)
	}
	return f.Nodes
}

// Hosts are the nodes that an instance may be on at any time: its places, or with
// a scheduler of its own mind all candidates.
func (f *Fleet) Hosts(s Service) []NodeName {
	if f.Scheduler != Nomad || s.Static != "" {
		return f.Places(s)
	}
	var out []NodeName
	for _, n := range f.Candidates(s) {
		out = append(out, n.Name)
	}
	return out
}

// Places are the nodes that the service's instances run on, one on each, fewer
// than Count where there are not as many: those of as many sites as can be. A
// node that comes or goes moves no more instances than it must: among equals the
// choice is by highest random weight (Thaler and Ravishankar, "A Name-Based
// Mapping Scheme for Rendezvous", 1996), which needs no memory.
func (f *Fleet) Places(s Service) []NodeName {
	candidates := f.Candidates(s)
	seed := hash(string(s.Name))
	best := make(map[SiteName]weighed)
	for i := range candidates {
		n := &candidates[i]
		w := weighed{n, mix(seed ^ hash(string(n.Name)))}
		if b, some := best[n.Site]; !some || w.compare(b) < 0 {
			best[n.Site] = w
		}
	}
	if s.Count > len(best) {
		return f.crowded(s, candidates)
	}
	tops := slices.SortedFunc(maps.Values(best), weighed.compare)
	out := make([]NodeName, 0, s.Count)
	for _, w := range tops[:s.Count] {
		out = append(out, w.node.Name)
	}
	slices.Sort(out)
	return out
}

// crowded is Places where some site has more than one instance.
func (f *Fleet) crowded(s Service, candidates []Node) []NodeName {
	seed := hash(string(s.Name))
	all := make([]weighed, len(candidates))
	for i := range candidates {
		all[i] = weighed{&candidates[i], mix(seed ^ hash(string(candidates[i].Name)))}
	}
	slices.SortFunc(all, weighed.compare)
	nodes := make([]Node, len(all))
	for i, w := range all {
		nodes[i] = *w.node
	}
	var out []NodeName
	for _, n := range spread(nodes)[:min(s.Count, len(nodes))] {
		out = append(out, n.Name)
	}
	slices.Sort(out)
	return out
}

// weighed is a node with its weight for one service.
type weighed struct {
	node   *Node
	weight uint64
}

func (w weighed) compare(o weighed) int {
	if c := cmp.Compare(o.weight, w.weight); c != 0 {
		return c
	}
	return cmp.Compare(w.node.Name, o.node.Name)
}

// hash is FNV-1a, 64 bits (draft-eastlake-fnv, section 5): stable for ever.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads every bit over all (the finalizer of SplitMix64: Steele, Lea and
// Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
