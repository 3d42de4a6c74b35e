package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Constraints are what an authority may vouch for. What is not in them it may
// not: kinds of names that are in none are bound to "invalid", under which there
// are none (RFC 6761, section 6.4).
type Constraints struct {
	Name     string         // its own, for people
	Domains  []string       // each with all names under it
	Prefixes []netip.Prefix // of addresses
}

// Tags of GeneralName (RFC 5280, section 4.2.1.6).
const (
	tagEmail  = 1
	tagDNS    = 2
	tagURI    = 6
	tagIP     = 7
	nobody    = "invalid"
	maxDomain = 253
)

// extension is the constraints as the certificate has them: critical, in one
// order, so that two can be compared by their bytes.
func (c Constraints) extension() (pkix.Extension, error) {
	var none pkix.Extension
	if len(c.Domains) == 0 {
		return none, fmt.Errorf("%s: bound to no name: %w", c.Name, errConstraint)
	}
	domains := slices.Clone(c.Domains)
	slices.Sort(domains)
	var trees []subtree
	for _, d := range slices.Compact(domains) {
		if !isDomain(d) {
			return none, fmt.Errorf("%q: %w", d, errConstraint)
		}
		trees = append(trees, tree(tagDNS, []byte(d)))
	}
	prefixes := slices.Clone(c.Prefixes)
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	for _, p := range slices.Compact(prefixes) {
		if !p.IsValid() || p != p.Masked() {
			return none, fmt.Errorf("%s: %w", p, errConstraint)
		}
		trees = append(trees, tree(tagIP, append(p.Addr().AsSlice(), mask(p)...)))
	}
	if len(prefixes) == 0 {
		return none, fmt.Errorf("%s: bound to no address: %w", c.Name, errConstraint)
	}
	trees = append(trees, tree(tagEmail, []byte(nobody)), tree(tagURI, []byte(nobody)))
	value, err := asn1.Marshal(nameConstraints{Permitted: trees})
	if err != nil {
		return none, fmt.Errorf("%s: %w", c.Name, err)
	}
	return pkix.Extension{Id: oidNameConstraints(), Critical: true, Value: value}, nil
}

type nameConstraints struct {
	Permitted []subtree `asn1:"optional,tag:0"`
}

type subtree struct {
	Base asn1.RawValue
}

func tree(tag int, value []byte) subtree {
	return subtree{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value}}
}

func mask(p netip.Prefix) []byte {
	out := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}

// isDomain says whether d is a lower-case name of letters, digits, "-" and ".".
func isDomain(d string) bool {
	if d == "" || len(d) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
