package status

import (
	"fmt"
	"slices"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Certificate is what the ingress nodes have for one host.
type Certificate struct {
	Host     string    `json:"host"`
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"` // zero: nobody has one yet
	Problem  string    `json:"problem,omitempty"`
}

// certificates gathers what the ingress nodes have. They share theirs: where two
// differ, the one that lasts longer is on its way to the other.
func (s *Fleet) certificates(f *fleet.Fleet, answers map[fleet.NodeName]Answer, now time.Time) {
	best := make(map[string]fleet.Certificate)
	for _, n := range f.Nodes {
		seen := answers[n.Name].Seen
		if seen == nil || seen.Ingress == nil {
			continue
		}
		if p := seen.Ingress.Problem; p != "" {
			s.Problems = append(s.Problems, Problem{n.Name, "its ingress: " + p, "moggy logs node." + string(n.Name)})
		}
		for _, c := range seen.Ingress.Certificates {
			if b, some := best[c.Host]; !some || c.NotAfter.After(b.NotAfter) {
				best[c.Host] = c
			}
		}
	}
	var hosts []string
	for host := range best {
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	for _, host := range hosts {
		c := best[host]
		s.Certificates = append(s.Certificates, Certificate{c.Host, c.Issuer, c.NotAfter, c.Problem})
		switch {
		case !c.Alarm(now):
		case c.NotAfter.IsZero() && c.Problem == "":
			// The first request fetches it.
		case c.NotAfter.IsZero():
			s.Problems = append(s.Problems, Problem{"", fmt.Sprintf("there is no certificate for %s: %s", host, c.Problem), ""})
		default:
			s.Problems = append(s.Problems, Problem{"", fmt.Sprintf("the certificate for %s ends in %s, and is not renewed: %s", host, Span(c.NotAfter.Sub(now)), c.Problem), ""})
		}
	}
}

// certificatesText is the word of the summary: all is well, and until when.
func (s *Fleet) certificatesText(now time.Time) string {
	var first time.Time
	for _, c := range s.Certificates {
		if c.NotAfter.IsZero() {
			continue
		}
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	if first.IsZero() {
		return ""
	}
	return fmt.Sprintf("   certificates good for %s", Span(first.Sub(now)))
}
