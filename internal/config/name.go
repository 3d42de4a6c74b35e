package config

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// Label makes a DNS label of s, as a name in fleet.hcl must be one, or "" if
// nothing of s can stand in one.
func Label(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case strings.ContainsRune("-_. /", r):
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), "-0123456789")
	if len(name) > source.MaxLabel {
		name = name[:source.MaxLabel]
	}
	return strings.TrimRight(name, "-")
}

// lossless is Label where nothing but dashes would be dropped, or "".
func lossless(s string) string {
	if strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-_. ") != "" || s == "" || len(s) > source.MaxLabel || s[0] >= '0' && s[0] <= '9' {
		return ""
	}
	return Label(s)
}

// checkName reports a name that is no DNS label.
func (d *decoder) checkName(at hcl.Range, subject, name string) {
	why := source.WrongName(name)
	if why == "" {
		return
	}
	suggestion := ""
	// Only what loses no letter: "müller" is not "mller".
	if better := lossless(name); source.WrongName(better) == "" {
		suggestion = fmt.Sprintf("did you mean %q?", better)
	}
	d.Mistake(at, suggestion, "%s: no DNS label: %s", subject, why)
}

// wrongDomain says why s is no domain name, or "". Labels of a domain may
// start with a digit (RFC 1123, section 2.1).
func wrongDomain(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case strings.Contains(s, "://"), strings.Contains(s, "/"):
		return "it is a URL"
	case len(s) > 253: // RFC 1035, section 3.1: 255 octets on the wire
		return "it is longer than 253 characters"
	case strings.HasSuffix(s, "."):
		return "it ends with a dot"
	case !strings.Contains(s, "."):
		return "it has only one label"
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > source.MaxLabel:
			return "it has a label of more than 63 characters"
		case strings.HasPrefix(label, "-"), strings.HasSuffix(label, "-"):
			return "a label starts or ends with a dash"
		case strings.ToLower(label) != label:
			return "it has an upper-case letter"
		case strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return "a label has only a-z, 0-9 and - (others are written in punycode: xn--...)"
		}
	}
	return ""
}

// betterDomain is what was probably meant by a wrong domain, or "".
func betterDomain(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s, _, _ = strings.Cut(s, "/")
	s = strings.ToLower(strings.TrimRight(s, "."))
	if wrongDomain(s) != "" {
		return ""
	}
	return s
}
