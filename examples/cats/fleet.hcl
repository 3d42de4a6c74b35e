# The reference fleet: three rented servers and three old laptops in two homes.
# Everything here is a fact about the machines. What each of them does for the
# others follows from it: moggy check, then moggy plan.

fleet "cats" {
  domain = "cats.example" # public names live under it

  # Who may change the fleet, with the public half of their SSH key.
  operators = {
    nico = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6nN7JmD5inEGLCqarJIUaR5v+M5rCW5EsArBmG7MmS nico@laptop"
  }
}

# A site is a place with one line to the internet.
site "dusseldorf" { kind = "datacenter" }
site "nuremberg" { kind = "datacenter" }

site "london" {
  kind = "home"
  nat  = "cgnat" # the provider shares one IPv4 address among its customers; IPv6 is there
}

site "madrid" {
  kind = "home"
  nat  = "cgnat"
  ipv6 = false # so bianco reaches the others only through a hub
}

# Three machines with public addresses: they connect the others (hubs), take
# HTTPS (ingress), and vote (servers). Any one of them may fail.
node "cosmo" {
  site   = site.dusseldorf
  public = ["198.51.100.11", "2001:db8:c0::11"]
}

node "maco" {
  site   = site.dusseldorf
  public = ["198.51.100.12", "2001:db8:c0::12"]
}

node "miki" {
  site   = site.nuremberg
  public = ["203.0.113.21", "2001:db8:e1::21"]
}

# Three laptops that nobody reaches from outside. They join from their own
# keyboard, once: moggy token ari
node "ari" { site = site.london }
node "ziggy" { site = site.london }
node "bianco" { site = site.madrid }

# What runs on them. The website is a container on the laptops, behind two
# carriers' NATs; whoever asks for it comes in at any of the three servers.
service "web" {
  image  = "registry.cats.example/web:1.4.2"
  env    = { TITLE = "The cats" }
  port   = 8080
  count  = 2
  on     = [site.madrid, site.london]
  health = "/healthz"
  expose = { host = "cats.example" }
}

# A folder, which the three servers serve.
service "blog" {
  static = "./blog"
  expose = { host = "blog.cats.example" }
}
