package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const exampleExpose = `expose = { host = "cats.example" }`

// routeAt is a route and where it stands.
type routeAt struct {
	fleet.Route
	at hcl.Range
}

// routes reads expose: one route, or a list of them.
func (f fields) routes() []routeAt {
	a := f.b.body.Attributes["expose"]
	if a == nil {
		return nil
	}
	each := []hclsyntax.Expression{a.Expr}
	if list, ok := source.Bare(a.Expr).(*hclsyntax.TupleConsExpr); ok {
		each = list.Exprs
		f.empty("expose", "leave it out: only the fleet reaches it", each)
	}
	var out []routeAt
	for _, e := range each {
		if r, ok := f.route(e); ok {
			out = append(out, routeAt{r, e.Range()})
		}
	}
	return out
}

// route reads { host = "...", path = "/", to = "public" }; false where something
// is wrong with it.
func (f fields) route(e hclsyntax.Expression) (fleet.Route, bool) {
	r := fleet.Route{Path: "/", To: fleet.Public}
	object, ok := source.Bare(e).(*hclsyntax.ObjectConsExpr)
	if !ok {
		v, is := source.Literal(e)
		suggestion := exampleExpose
		if is == source.IsText && wrongDomain(v.AsString()) == "" {
			suggestion = fmt.Sprintf("did you mean { host = %q }?", v.AsString())
		}
		f.wrong(e.Range(), suggestion, "expose is a map with a host, not %s", is)
		return r, false
	}
	before := f.d.Len()
	names := []string{"host", "path", "to"}
	seen := make(map[string]bool)
	for _, item := range object.Items {
		name, ok := f.key(item.KeyExpr, "a key of expose", exampleExpose)
		if !ok {
			continue
		}
		if seen[name] {
			f.wrong(item.KeyExpr.Range(), "remove one of them", "expose has %s twice", source.Quoted(name))
			continue
		}
		seen[name] = true
		if !slices.Contains(names, name) {
			f.wrong(item.KeyExpr.Range(), f.d.similar(name, names, map[string]string{"domain": "host", "hostname": "host", "name": "host", "prefix": "path", "audience": "to", "for": "to"}, ""),
				"expose has no %s", source.Quoted(name))
			continue
		}
		it, ok := f.textOf(name+" is a text", item.ValueExpr)
		if !ok {
			continue
		}
		switch name {
		case "host":
			r.Host = f.host(it)
		case "path":
			r.Path = f.prefix(it)
		case "to":
			r.To = f.audience(it)
		}
	}
	if !seen["host"] {
		f.wrong(e.Range(), exampleExpose, "expose has no host")
	}
	return r, f.d.Len() == before
}

// host reads a name that the fleet answers to.
func (f fields) host(it source.Item) string {
	if why := wrongDomain(it.Value); why != "" {
		suggestion := ""
		if better := betterDomain(it.Value); better != "" {
			suggestion = fmt.Sprintf("did you mean %q?", better)
		} else if domain := f.d.fleet.Domain; domain != "" && source.WrongName(it.Value) == "" {
			suggestion = fmt.Sprintf("did you mean %q?", it.Value+"."+domain)
		}
		f.wrong(it.At, suggestion, "host %s: %s", source.Quoted(it.Value), why)
	}
	return it.Value
}

// prefix reads the beginning of a path.
func (f fields) prefix(it source.Item) string {
	p := it.Value
	clean := path.Clean("/" + p)
	switch {
	case p == clean && !strings.ContainsAny(p, " \t\r\n\x00?#*%"):
		return p
	case strings.ContainsAny(p, " \t\r\n\x00?#*%"):
		f.wrong(it.At, "", "path %s: it has only plain characters: it is the beginning of paths, no pattern", source.Quoted(p))
	default:
		f.wrong(it.At, fmt.Sprintf("did you mean %q?", clean), "path %s begins with / and ends without", source.Quoted(p))
	}
	return "/"
}

// audience reads who may come.
func (f fields) audience(it source.Item) fleet.Audience {
	to := fleet.Audience(it.Value)
	if to != fleet.Public && to != fleet.Mesh {
		f.wrong(it.At, f.d.similar(it.Value, []string{"public", "mesh"}, map[string]string{"internet": "public", "all": "public", "private": "mesh", "internal": "mesh", "vpn": "mesh"}, `"`),
			"there is no to %s", source.Quoted(it.Value))
	}
	if to == fleet.Mesh {
		f.wrong(it.At, `leave expose out: on the mesh it is at http://ADDRESS:PORT already`, `to = "mesh" is not there yet`)
	}
	return to
}

// staticOnly reports what a folder cannot have.
func (f fields) staticOnly(routes []routeAt) {
	for _, name := range []string{"args", "env", "port", "count", "on", "memory", "volumes", "health"} {
		if a := f.b.body.Attributes[name]; a != nil {
			f.wrong(a.NameRange, "remove it", "a folder has no %s: every ingress node serves it", name)
		}
	}
	if len(routes) == 0 && f.missing("expose") {
		f.wrong(f.b.at, exampleExpose, "nobody reaches a folder that is not exposed")
	}
}

// judgeRoutes reports hosts that are not the fleet's, and two services with the
// same.
func (d *decoder) judgeRoutes() {
	type door struct{ host, path string }
	taken := make(map[door]fleet.ServiceName)
	ingress := false
	for _, r := range d.fleet.Roles() {
		ingress = ingress || r.Ingress
	}
	for _, s := range d.fleet.Services {
		f := d.services[s.Name]
		for _, r := range f.routes {
			if domain := d.fleet.Domain; domain == "" {
				f.wrong(r.at, fmt.Sprintf("fleet %q { domain = %q }", d.fleet.Name, r.Host), "host %s: the fleet has no domain", source.Quoted(r.Host))
				continue
			} else if r.Host != domain && !strings.HasSuffix(r.Host, "."+domain) {
				f.wrong(r.at, fmt.Sprintf("a name under %q", domain), "host %s is outside of the fleet's domain", source.Quoted(r.Host))
				continue
			}
			if d.fleet.Scheduler == fleet.Nomad && s.Static == "" {
				f.wrong(r.at, "", `expose with scheduler = "nomad" is not there yet: the ingress does not follow Nomad's allocations`)
				continue
			}
			if first, is := taken[door{r.Host, r.Path}]; is {
				f.wrong(r.at, "another host, or another path", "service %q has %s%s already", first, r.Host, r.Path)
				continue
			}
			taken[door{r.Host, r.Path}] = s.Name
			if !ingress && !d.doubt.hubs {
				f.wrong(r.at, `a node with a public address: public = ["ADDRESS"]`, "no node takes requests from outside")
				return
			}
		}
	}
}
