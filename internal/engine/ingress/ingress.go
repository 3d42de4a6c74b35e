// Package ingress renders what an ingress node needs to answer HTTPS for the
// fleet's services: the routes with their backends, the unit of `moggy ingress`,
// and the sites it serves from its own disk. It serves nothing; that is package
// internal/ingress.
package ingress

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// Unit is the ingress' systemd unit.
	Unit = "moggy-ingress.service"
	// UnitPath is where its unit file is linked.
	UnitPath = "/etc/systemd/system/" + Unit
	// LetsEncrypt is the directory where the file names none.
	LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"
)

//go:embed moggy-ingress.service
var unitFile []byte

// Sites are the folders of Static services as archives, by what static says.
type Sites interface {
	Digest(static string) fleet.Digest
}

// Ingress is what every ingress node of a fleet needs; the same on all.
type Ingress struct {
	nodes map[fleet.NodeName]bool
	files []fleet.File
	watch []string // files whose change the ingress reads by itself
}

// New renders the ingress of a fleet. Without routes there is none, and none of
// ours where another engine answers.
func New(f *fleet.Fleet, l *fleet.Lock, sites Sites) *Ingress {
	in := &Ingress{nodes: make(map[fleet.NodeName]bool)}
	cfg := Config(f, l, sites)
	if len(cfg.Routes) == 0 || f.Ingress == fleet.Traefik {
		return in
	}
	for _, n := range cfg.Nodes {
		in.nodes[n.Name] = true
	}
	in.files = []fleet.File{
		fleet.NewFile(fleet.IngressConfigPath, 0o644, Encode(cfg)),
		fleet.NewFile(UnitPath, 0o644, unitFile),
	}
	in.watch = []string{fleet.IngressConfigPath}
	for _, s := range cfg.Services {
		if s.Site != "" {
			file := fleet.File{Path: SitePath(s.Name), Mode: 0o644, Digest: s.Site}
			in.files, in.watch = append(in.files, file), append(in.watch, file.Path)
		}
	}
	return in
}

// SitePath is where the site of a Static service stands on an ingress node.
func SitePath(s fleet.ServiceName) string { return fleet.SitesDir + "/" + string(s) + ".zip" }

// Part is what the ingress needs on a node; false where it is none. The binary at
// binaryPath is the agent's part.
func (in *Ingress) Part(n fleet.NodeName, binaryPath string) (fleet.Part, bool) {
	if !in.nodes[n] {
		return fleet.Part{}, false
	}
	return fleet.Part{
		Engine: "ingress",
		Files:  slices.Clone(in.files),
		Units:  []fleet.Unit{{Name: Unit, RestartOn: []string{binaryPath}, ReloadOn: in.watch}},
		Checks: []fleet.Check{{Name: "the ingress takes connections", Kind: fleet.CheckTCP, Address: "127.0.0.1:443"}},
	}, true
}

// Config is the ingress as every ingress node is told of it.
func Config(f *fleet.Fleet, l *fleet.Lock, sites Sites) fleet.IngressConfig {
	cfg := fleet.IngressConfig{
		Version: 1, Fleet: f.Name, V4: l.Mesh.V4, V6: l.Mesh.V6, Port: port(f.Port),
		ACME:  fleet.IngressACME{Directory: cmp.Or(f.ACME.Directory, LetsEncrypt), Email: f.ACME.Email},
		Nodes: []fleet.IngressNode{}, Services: []fleet.IngressService{}, Routes: []fleet.IngressRoute{},
	}
	roles := f.Roles()
	locks := make(map[fleet.NodeName]fleet.NodeLock, len(l.Nodes))
	for _, n := range l.Nodes { // sorted by name
		locks[n.Name] = n
		if !roles[n.Name].Ingress || n.MeshKey.IsZero() {
			continue
		}
		node := fleet.IngressNode{Name: n.Name, Keys: []fleet.Key{n.MeshKey}, V4: n.V4, V6: n.V6}
		for _, other := range []fleet.Key{n.NextKey, n.OldKey} {
			if !other.IsZero() {
				node.Keys = append(node.Keys, other)
			}
		}
		cfg.Nodes = append(cfg.Nodes, node)
	}
	for _, s := range f.Services {
		if len(s.Expose) == 0 {
			continue
		}
		out := fleet.IngressService{Name: s.Name}
		if s.Static != "" {
			out.Site = sites.Digest(s.Static)
		} else {
			out.Health, out.Path = s.Health.Kind, s.Health.Path
			for _, host := range f.Hosts(s) {
				if at := locks[host].V4; at.IsValid() {
					out.Backends = append(out.Backends, fleet.IngressBackend{Node: host, Address: netip.AddrPortFrom(at, s.Port)})
				}
			}
		}
		cfg.Services = append(cfg.Services, out)
		for _, r := range s.Expose {
			cfg.Routes = append(cfg.Routes, fleet.IngressRoute{Host: r.Host, Path: r.Path, To: r.To, Service: s.Name})
		}
	}
	slices.SortFunc(cfg.Services, func(a, b fleet.IngressService) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(cfg.Routes, func(a, b fleet.IngressRoute) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), strings.Compare(a.Path, b.Path))
	})
	return cfg
}

// port is the TCP port that ingress nodes talk to each other on: the one after
// the mesh's, whose number the agent's metrics have.
func port(mesh uint16) uint16 {
	if mesh == 65535 {
		return mesh - 1
	}
	return mesh + 1
}

// Encode is the configuration as the file holds it: JSON with one thing per line,
// so that a diff shows what changes.
func Encode(cfg fleet.IngressConfig) []byte {
	nodes, services, routes := cfg.Nodes, cfg.Services, cfg.Routes
	cfg.Nodes, cfg.Services, cfg.Routes = nil, nil, nil
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(mustJSON(cfg), []byte(`"nodes":null,"services":null,"routes":null}`)))
	list(&b, "nodes", nodes)
	b.WriteByte(',')
	list(&b, "services", services)
	b.WriteByte(',')
	list(&b, "routes", routes)
	b.WriteString("}\n")
	return b.Bytes()
}

func list[T any](b *bytes.Buffer, name string, items []T) {
	b.WriteString("\n" + `"` + name + `":[`)
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(mustJSON(item))
	}
	b.WriteString("\n]")
}

// mustJSON marshals a value of our own types, none of which can fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
