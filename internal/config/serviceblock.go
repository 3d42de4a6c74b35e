package config

import (
	"fmt"
	"math/bits"
	"path"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func serviceKind() kind {
	return kind{
		name:       "service",
		attributes: []string{"image", "exec", "static", "args", "env", "port", "count", "on", "memory", "volumes", "health", "expose"},
		aliases: map[string]string{
			"container": "image", "docker": "image", "folder": "static", "files": "static", "root": "static", "website": "static",
			"volume": "volumes", "data": "volumes", "mounts": "volumes", "storage": "volumes",
			"host": "expose", "hosts": "expose", "hostname": "expose", "domain": "expose", "route": "expose", "routes": "expose", "ingress": "expose", "url": "expose",
			"binary": "exec", "program": "exec", "run": "exec", "arguments": "args", "argv": "args", "command": "args", "cmd": "args",
			"environment": "env", "ports": "port", "replicas": "count", "instances": "count", "scale": "count", "nodes": "on", "node": "on",
			"site": "on", "placement": "on", "mem": "memory", "ram": "memory", "memory_max": "memory", "check": "health", "healthcheck": "health",
		},
		decode: (*decoder).service,
	}
}

const (
	exampleExec   = `exec = "./program", beside this file`
	exampleImage  = `as in "registry.example/web:1.4.2"`
	exampleStatic = `static = "./folder", beside this file`
	exampleEnv    = `env = { NAME = "value" }`
	exampleVolume = `volumes = { data = "/var/lib/data" }`
	// maxCount bounds the instances of one service.
	maxCount = 1000
	// maxText is the longest argument or value, in bytes: systemd's own limit for
	// a line of a unit file is 1 MiB (systemd.syntax(7)).
	maxText = 64 << 10
	// maxServiceName leaves room for what unit names have around it.
	maxServiceName = 48
	// minMemory is the least that a Go or C program starts in, in bytes.
	minMemory = 4 << 20
)

// servicePlaces are where a service's mistakes about the whole fleet are shown.
type servicePlaces struct {
	fields
	sound  bool
	routes []routeAt // as the service's Expose
}

// service decodes what runs on some of the nodes, or is served by the ingress.
func (d *decoder) service(b *block) {
	f := d.fields(b, serviceKind())
	before := d.Len()
	s := fleet.Service{Name: fleet.ServiceName(b.name), Count: 1}
	if len(b.name) > maxServiceName {
		f.wrong(b.nameAt, "", "a service's name has at most %d characters", maxServiceName)
	}
	f.what(&s)
	if port, ok := f.number("port", 1, 65535); ok {
		s.Port = uint16(port)
	}
	routes := f.routes()
	for _, r := range routes {
		s.Expose = append(s.Expose, r.Route)
	}
	if s.Static != "" {
		s.Count = 0
		f.staticOnly(routes)
	} else {
		f.instances(&s)
		if len(routes) > 0 && f.missing("port") {
			f.wrong(routes[0].at, "port = 8080", "expose leads to a port, and there is none")
		}
	}
	if d.names["service"][b.name] != b {
		return
	}
	d.fleet.Services = append(d.fleet.Services, s)
	d.services[s.Name] = servicePlaces{f, d.Len() == before && !b.broken, routes}
}

// instances reads how the program runs.
func (f fields) instances(s *fleet.Service) {
	s.Args, s.Env, s.Memory = f.args(), f.env(), f.memory()
	if n, ok := f.count(); ok {
		s.Count = n
	}
	on, _ := f.parties("on", "leave it out: any node")
	f.covered("on", on)
	s.On = bare(on)
	s.Volumes = f.volumes()
	s.Health = f.health(s.Port)
}

// what reads which program, image or folder it is: one of the three.
func (f fields) what(s *fleet.Service) {
	kinds := []string{"image", "exec", "static"}
	var has []string
	for _, k := range kinds {
		if f.has(k) {
			has = append(has, k)
		}
	}
	switch {
	case len(has) > 1:
		f.wrong(f.b.body.Attributes[has[1]].NameRange, "remove one of them", "%s and %s: it is one or the other", has[0], has[1])
	case len(has) == 0 && f.missing("image") && f.missing("exec") && f.missing("static"):
		f.wrong(f.b.at, `image = "registry.example/web:1.4.2"`, "needs one of image, exec, static")
	}
	s.Exec, s.Image, s.Static = f.exec(), f.image(), f.static()
}

// exec reads which program.
func (f fields) exec() string {
	it, ok := f.text("exec")
	if !ok {
		return ""
	}
	p := it.Value
	local := strings.HasPrefix(p, "./")
	clean := path.Clean(p)
	switch {
	case plain(p) != "":
		f.wrong(it.At, "", "exec %s", plain(p))
	case strings.ContainsAny(p, " \t"):
		f.wrong(it.At, "the arguments go into args = [...]", "exec is a path: it has no spaces")
	case !local && !path.IsAbs(p):
		f.wrong(it.At, fmt.Sprintf(`%q beside this file, or its absolute path on the nodes`, "./"+clean), "%s: which of the two?", source.Quoted(p))
	case strings.HasPrefix(clean, ".."), local && clean == ".":
		f.wrong(it.At, exampleExec, "%s does not lie beside this file", source.Quoted(p))
	case local:
		return "./" + clean
	default:
		return clean
	}
	return ""
}

// static reads which folder.
func (f fields) static() string {
	it, ok := f.text("static")
	if !ok {
		return ""
	}
	clean := path.Clean(it.Value)
	switch {
	case plain(it.Value) != "":
		f.wrong(it.At, "", "static %s", plain(it.Value))
	case path.IsAbs(it.Value), strings.HasPrefix(clean, ".."):
		f.wrong(it.At, exampleStatic, "%s does not lie beside this file", source.Quoted(it.Value))
	case clean == ".":
		f.wrong(it.At, exampleStatic, "this folder holds the fleet's file: a folder in it")
	default:
		return "./" + clean
	}
	return ""
}

// args reads the program's arguments.
func (f fields) args() []string {
	var out []string
	for _, it := range f.texts("args", `args = ["--flag", "value"]`) {
		if why := plain(it.Value); why != "" {
			f.wrong(it.At, "", "an argument %s", why)
			continue
		}
		out = append(out, it.Value)
	}
	return out
}

// env reads the environment.
func (f fields) env() []fleet.Variable {
	var out []fleet.Variable
	seen := make(map[string]hcl.Range)
	for _, entry := range f.entries("env", "a map from names to texts", exampleEnv) {
		at := entry.KeyExpr.Range()
		name, ok := f.key(entry.KeyExpr, "a variable's name", exampleEnv)
		if !ok {
			continue
		}
		first, twice := seen[name]
		seen[name] = at
		switch {
		case twice:
			f.wrong(at, "", "variable %s: there is one already at %s", source.Quoted(name), source.Place(first))
		case strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "", name[0] >= '0' && name[0] <= '9':
			f.wrong(at, "", "variable %s: a name has letters, digits and _", source.Quoted(name))
		case name == "PORT", strings.HasPrefix(name, "MOGGY_"):
			f.wrong(at, "remove it", "variable %s: moggy sets it", source.Quoted(name))
		default:
			it, ok := f.textOf("variable "+source.Quoted(name)+" is a text", entry.ValueExpr)
			if why := plain(it.Value); ok && why != "" {
				f.wrong(it.At, "", "variable %s %s", source.Quoted(name), why)
				continue
			}
			out = append(out, fleet.Variable{Name: name, Value: it.Value})
		}
	}
	return out
}

// plain says why a text cannot stand in a unit file, or "".
func plain(s string) string {
	switch {
	case strings.ContainsAny(s, "\n\r\x00"):
		return "has one line"
	case len(s) > maxText:
		return fmt.Sprintf("is longer than %d bytes", maxText)
	}
	return ""
}

// count reads how many.
func (f fields) count() (int, bool) {
	if a := f.b.body.Attributes["count"]; a != nil {
		if v, is := source.Literal(a.Expr); is == source.IsNumber && v.AsBigFloat().Sign() == 0 {
			f.wrong(a.Expr.Range(), "remove the block", "count = 0 is no service")
			return 0, false
		}
	}
	return f.number("count", 1, maxCount)
}

// memory reads a size like "128M", in powers of 1,024 as systemd does.
func (f fields) memory() uint64 {
	it, ok := f.text("memory")
	if !ok {
		return 0
	}
	n, ok := size(it.Value)
	switch {
	case !ok:
		f.wrong(it.At, `as in "128M" or "2G"`, "%s is no size", source.Quoted(it.Value))
	case n < minMemory:
		f.wrong(it.At, fmt.Sprintf("did you mean %q?", strings.TrimRight(it.Value, "KMGkmgiBb")+"M"), "no program starts in %s bytes", strconv.FormatUint(n, 10))
	default:
		return n
	}
	return 0
}

// size reads a number of bytes with K, M, G or T behind it.
func size(s string) (uint64, bool) {
	const units = "KMGT"
	shift := uint(0)
	if s != "" {
		if i := strings.IndexByte(units, s[len(s)-1]); i >= 0 {
			shift, s = uint(i+1)*10, s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || s[0] == '+' || bits.LeadingZeros64(n) < int(shift) {
		return 0, false
	}
	return n << shift, true
}

// health reads when an instance is well: "/path", "tcp" or "none".
func (f fields) health(port uint16) fleet.Health {
	it, ok := f.text("health")
	switch {
	case !ok && port == 0, ok && it.Value == "none":
		return fleet.Health{Kind: fleet.HealthNone}
	case !ok:
		return fleet.Health{Kind: fleet.HealthHTTP, Path: "/"}
	case !f.has("port"):
		f.wrong(it.At, "port = 8080, or remove this line", "health %s asks a port, and there is none", source.Quoted(it.Value))
	case it.Value == "tcp":
		return fleet.Health{Kind: fleet.HealthTCP}
	case strings.HasPrefix(it.Value, "/") && !strings.ContainsAny(it.Value, " \t\r\n\x00#"):
		return fleet.Health{Kind: fleet.HealthHTTP, Path: it.Value}
	default:
		f.wrong(it.At, `"/healthz" is asked by HTTP, "tcp" takes connections, "none" runs`, "there is no health %s", source.Quoted(it.Value))
	}
	return fleet.Health{Kind: fleet.HealthNone}
}
