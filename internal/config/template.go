package config

import (
	"fmt"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Template is the file a new fleet starts from: one machine, and a comment for
// each thing one may want next. It passes check as it is, if name is a DNS
// label; the machine's address is one for documentation. op may be nil: then
// the operators are only shown.
func Template(name fleet.Name, op *fleet.Operator) []byte {
	operators := `  # operators = {
  #   me = "ssh-ed25519 AAAA... me@laptop"
  # }`
	if op != nil {
		operators = fmt.Sprintf("  operators = {\n    %s = %s\n  }", op.Name, source.QuoteHCL(op.Key))
	}
	return []byte(strings.NewReplacer("NAME", string(name), "OPERATORS", operators).Replace(template))
}

const template = `# The fleet NAME. After a change:
#   moggy check   finds mistakes
#   moggy plan    shows what would change, and what one failure would stop
#   moggy apply   makes it so

fleet "NAME" {
  # Public names live under this domain. Leave it out if you have none.
  # domain = "NAME.example"

  # Who may change the fleet: a name, and the public half of an SSH key, as in
  # ~/.ssh/id_ed25519.pub.
OPERATORS

  # The nodes' private addresses are chosen for you and kept in fleet.lock.hcl.
  # Say which, if a network of yours has the same.
  # mesh = ["10.77.0.0/16", "fd7a:6d6f:6767::/48"]

  # The UDP port of the mesh, open on every node with a public address.
  # port = 51877
}

# A site is a place with one line to the internet.
site "rack" {
  kind = "datacenter" # rented, always on, with public addresses
}

# Your home is one too. Its machines need no public address: they reach the
# others through those that have one.
# site "home" {
#   kind = "home"
#   nat  = "nat"   # "cgnat" if the provider has the public IPv4 address, not your router
#   ipv6 = true    # false if the line has none
# }

# A node is one machine. Roles follow from what it is: with a public IPv4
# address it connects the others and takes HTTPS; in a datacenter it has a vote.
node "first" {
  site   = site.rack
  public = ["192.0.2.10"] # replace it: every address the internet reaches it by, IPv4 and IPv6

  # How your ssh reaches it, if not as root at its first public address.
  # ssh = "admin@192.0.2.10:2222"

  # Any Linux with systemd does. Say "debian", "ubuntu", "fedora", "arch" or
  # "opensuse" to have it checked.
  # os = "debian"

  # What follows from the facts, decided by hand.
  # hub     = false # connects the others
  # server  = false # votes; their number stays odd
  # ingress = false # takes HTTPS from the internet
}

# Nobody reaches this one from outside, so it joins from its own keyboard, with
# a token: moggy token laptop
# node "laptop" { site = site.home }

# A service is a container, a program or a folder, run where it fits. Who asks
# for its host is led to it by HTTPS, with a certificate.
# service "web" {
#   image  = "docker.io/traefik/whoami:v1.10"
#   port   = 8080
#   count  = 2 # never both on one node
#   expose = { host = "NAME.example" }
# }

# Every node reaches every other. An allow closes the nodes it leads to, but for
# whom it names.
# allow "web" {
#   from  = [site.home] # leave it out: every node
#   to    = [node.first]
#   ports = ["tcp/443"] # leave it out: every port
# }
`
