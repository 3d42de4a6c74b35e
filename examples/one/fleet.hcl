# One rented machine. It does everything itself; more can be added beside it
# at any time.

fleet "one" {
  operators = {
    nico = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6nN7JmD5inEGLCqarJIUaR5v+M5rCW5EsArBmG7MmS nico@laptop"
  }
}

site "rack" { kind = "datacenter" }

node "solo" {
  site   = site.rack
  public = ["192.0.2.10", "2001:db8::10"]
}
