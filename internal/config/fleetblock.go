package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func fleetKind() kind {
	return kind{
		name:       "fleet",
		attributes: []string{"domain", "scheduler", "ingress", "acme", "mesh", "port", "operators"},
		aliases: map[string]string{
			"network": "mesh", "range": "mesh", "ranges": "mesh", "subnet": "mesh", "cidr": "mesh",
			"operator": "operators", "users": "operators", "admins": "operators", "keys": "operators", "ssh_keys": "operators",
			"dns": "domain", "listen_port": "port", "orchestrator": "scheduler", "proxy": "ingress", "letsencrypt": "acme", "certificates": "acme", "tls": "acme", "email": "acme",
		},
		decode: (*decoder).fleetBlock,
	}
}

func (d *decoder) fleetBlock(b *block) {
	f := d.fields(b, fleetKind())
	if d.home != nil {
		d.Mistake(b.at, "one file describes one fleet", "%s: the fleet is described at %s already, as %s", b, source.Place(d.home.at), d.home)
	}
	ranges := f.meshRanges()
	operators := f.operators()
	port, portOK := f.number("port", 1, 65535)
	domain, ok := f.text("domain")
	if ok {
		f.domain(domain)
	}
	scheduler, schedulerOK := f.choice("scheduler", []string{"systemd", "nomad"}, map[string]string{"none": "systemd", "kubernetes": "nomad", "k8s": "nomad", "docker": "systemd"})
	ingress, ingressOK := f.choice("ingress", []string{"caddy", "traefik"}, map[string]string{"nginx": "caddy", "haproxy": "caddy"})
	if ingress == string(fleet.Traefik) {
		f.wrong(f.at("ingress"), `"caddy", which needs nothing`, `ingress = "traefik" is not there yet`)
	}
	acme := f.acme()
	if d.home != nil {
		return
	}
	d.home, d.ranges = b, ranges
	d.fleet.Name, d.fleet.Domain, d.fleet.Operators = fleet.Name(b.name), domain.Value, operators
	d.fleet.ACME = acme
	if schedulerOK {
		d.fleet.Scheduler = fleet.Scheduler(scheduler)
	}
	if ingressOK {
		d.fleet.Ingress = fleet.IngressEngine(ingress)
	}
	if portOK {
		d.fleet.Port = uint16(port)
	}
	for _, r := range ranges {
		if r.prefix.Addr().Is4() {
			d.fleet.Mesh.V4 = r.prefix
		} else {
			d.fleet.Mesh.V6 = r.prefix
		}
	}
}

func (f fields) domain(it source.Item) {
	why := wrongDomain(it.Value)
	if why == "" {
		return
	}
	suggestion := ""
	if better := betterDomain(it.Value); better != "" {
		suggestion = fmt.Sprintf("did you mean %q?", better)
	}
	f.wrong(it.At, suggestion, "domain %s: %s", source.Quoted(it.Value), why)
}

const exampleACME = `acme = { email = "you@example.org" }`

// acme reads where certificates come from, and who is told of trouble.
func (f fields) acme() fleet.ACME {
	var out fleet.ACME
	names := []string{"email", "directory"}
	for _, entry := range f.entries("acme", "a map", exampleACME) {
		name, ok := f.key(entry.KeyExpr, "a key of acme", exampleACME)
		if !ok {
			continue
		}
		it, ok := f.textOf(name+" is a text", entry.ValueExpr)
		switch {
		case !ok:
		case name == "email" && !strings.Contains(strings.Trim(it.Value, "@"), "@"), name == "email" && strings.ContainsAny(it.Value, " <>,\t\r\n"):
			f.wrong(it.At, exampleACME, "email %s is no address", source.Quoted(it.Value))
		case name == "email":
			out.Email = it.Value
		case name == "directory" && !secureURL(it.Value):
			f.wrong(it.At, `as in "https://acme.example/directory"`, "directory %s is no https URL", source.Quoted(it.Value))
		case name == "directory":
			out.Directory = it.Value
		default:
			f.wrong(entry.KeyExpr.Range(), f.d.similar(name, names, map[string]string{"mail": "email", "contact": "email", "ca": "directory", "server": "directory", "url": "directory"}, ""), "acme has no %s", source.Quoted(name))
		}
	}
	return out
}

func secureURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil
}
