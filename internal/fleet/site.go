package fleet

// SiteName is a site's name, a DNS label.
type SiteName string

// SiteKind says what sort of place a site is.
type SiteKind string

// The kinds of site.
const (
	Datacenter SiteKind = "datacenter" // rented, always on, close to the internet's core
	Home       SiteKind = "home"       // behind somebody's router
)

// NAT says what stands between a site's private IPv4 and the internet.
type NAT string

// The kinds of NAT, by where the public address is held.
const (
	NoNAT      NAT = "none"  // addresses are public, or there is no IPv4 from outside at all
	RouterNAT  NAT = "nat"   // the site's own router holds the public address
	CarrierNAT NAT = "cgnat" // the provider holds it (RFC 6598); the router translates once more
)

// Site is a place with one line to the internet.
type Site struct {
	Name SiteName
	Kind SiteKind
	NAT  NAT
	IPv6 bool // machines there have public IPv6
}
