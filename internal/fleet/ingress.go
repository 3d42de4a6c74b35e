package fleet

import (
	"net/netip"
	"time"
)

// Where an ingress node keeps what the ingress needs.
const (
	IngressConfigPath = "/etc/moggy/ingress.json"
	IngressSocket     = "/run/moggy-ingress/ingress.sock" // HTTP over a unix socket, root only
	SitesDir          = "/usr/local/lib/moggy/sites"      // what Static services are made of, NAME.zip
)

// IngressConfig is /etc/moggy/ingress.json: all that the ingress must know to
// serve, without a scheduler, without the operator, without any other node. It is
// the same on every ingress node, byte for byte: an ingress finds itself in it by
// the addresses of its machine.
type IngressConfig struct {
	Version int          `json:"version"` // 1
	Fleet   Name         `json:"fleet"`
	V4      netip.Prefix `json:"v4"` // the mesh's ranges
	V6      netip.Prefix `json:"v6"`
	// Port is TCP, on the mesh: what ingress nodes tell each other, and metrics.
	Port     uint16           `json:"port"`
	ACME     IngressACME      `json:"acme"`
	Nodes    []IngressNode    `json:"nodes"`    // sorted by name
	Services []IngressService `json:"services"` // those that routes lead to, sorted by name
	Routes   []IngressRoute   `json:"routes"`   // sorted by host, then by path
}

// IngressACME is where certificates come from.
type IngressACME struct {
	Directory string `json:"directory"` // URL
	Email     string `json:"email,omitempty"`
}

// IngressNode is a node that takes HTTPS.
type IngressNode struct {
	Name NodeName   `json:"name"`
	Keys []Key      `json:"keys"` // of the mesh, the one it goes by first
	V4   netip.Addr `json:"v4"`   // on the mesh
	V6   netip.Addr `json:"v6"`
}

// IngressService is what routes lead to: backends, or a site.
type IngressService struct {
	Name     ServiceName      `json:"name"`
	Site     Digest           `json:"site,omitempty"`   // of the archive; "" for what has backends
	Health   HealthKind       `json:"health,omitempty"` // what backends are asked
	Path     string           `json:"path,omitempty"`   // of HealthHTTP
	Backends []IngressBackend `json:"backends,omitempty"`
}

// IngressBackend is where an instance may be.
type IngressBackend struct {
	Node    NodeName       `json:"node"`
	Address netip.AddrPort `json:"address"`
}

// IngressRoute leads requests to a service.
type IngressRoute struct {
	Host    string      `json:"host"`
	Path    string      `json:"path"` // "/", or "/" and segments without "/" at the end
	To      Audience    `json:"to"`
	Service ServiceName `json:"service"`
}

// BackendState is what an ingress thinks of a backend.
type BackendState string

// The states of a backend.
const (
	BackendUp    BackendState = "up"
	BackendDown  BackendState = "down"
	BackendProbe BackendState = "unknown" // it was not asked yet
)

// IngressStatus is what an ingress says of itself, over IngressSocket.
type IngressStatus struct {
	Version      int             `json:"version"` // 1
	Self         NodeName        `json:"self"`
	Ingress      string          `json:"ingress"` // moggy's version
	Config       Digest          `json:"config"`  // of the configuration in force
	Routes       []RouteStatus   `json:"routes"`
	Certificates []Certificate   `json:"certificates"`
	Peers        []IngressPeer   `json:"peers,omitempty"` // the other ingress nodes
	Problem      string          `json:"problem,omitempty"`
	Services     []ServiceStatus `json:"services"`
}

// RouteStatus is one route.
type RouteStatus struct {
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	To      Audience    `json:"to"`
	Service ServiceName `json:"service"`
}

// ServiceStatus is what a route leads to.
type ServiceStatus struct {
	Name     ServiceName     `json:"name"`
	Site     Digest          `json:"site,omitempty"`
	Backends []BackendStatus `json:"backends,omitempty"`
}

// BackendStatus is a backend as an ingress sees it.
type BackendStatus struct {
	Node     NodeName       `json:"node"`
	Address  netip.AddrPort `json:"address"`
	State    BackendState   `json:"state"`
	Since    time.Time      `json:"since,omitzero"`
	Why      string         `json:"why,omitempty"` // it is down
	Active   int            `json:"active"`        // requests under way
	Requests uint64         `json:"requests"`      // tried since the ingress started
	Failed   uint64         `json:"failed"`        // of those, tries that failed
}

// Certificate is one for a host of a route.
type Certificate struct {
	Host     string    `json:"host"`
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"` // zero: there is none yet
	Problem  string    `json:"problem,omitempty"`  // why there is none, or no newer one
}

// CertificateAlarm is how long before its expiry a certificate is an alarm: it is
// renewed when a third of its time is left, which is a month for those of 90 days.
const CertificateAlarm = 14 * 24 * time.Hour

// Alarm says whether somebody should look at the certificate.
func (c Certificate) Alarm(now time.Time) bool {
	return c.NotAfter.IsZero() || c.NotAfter.Sub(now) < CertificateAlarm
}

// IngressPeer is another ingress node.
type IngressPeer struct {
	Name    NodeName  `json:"name"`
	Heard   time.Time `json:"heard,omitzero"` // it and we last had the same certificates
	Problem string    `json:"problem,omitempty"`
}
