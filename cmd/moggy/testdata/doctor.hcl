# Two hubs and one that is none, for the faults that moggy doctor is to name.

fleet "ward" {
  operators = { nico = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6nN7JmD5inEGLCqarJIUaR5v+M5rCW5EsArBmG7MmS nico@laptop" }
}

site "rack" { kind = "datacenter" }
site "shed" { kind = "datacenter" }

node "one" {
  site   = site.rack
  public = ["198.51.100.11", "2001:db8:c0::11"]
}
node "two" {
  site   = site.shed
  public = ["203.0.113.21", "2001:db8:e1::21"]
}
node "three" {
  site   = site.shed
  public = ["203.0.113.22", "2001:db8:e1::22"]
  hub    = false
}
