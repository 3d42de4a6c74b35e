package config

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	defaultUser    = "root"
	defaultSSHPort = 22
)

// ssh reads "[user@][host][:port]". The host may be left out where the node
// has a public address.
func (f fields) ssh(it source.Item, public bool) fleet.SSH {
	out := fleet.SSH{User: defaultUser, Port: defaultSSHPort}
	rest := it.Value
	if trimmed, ok := strings.CutPrefix(rest, "ssh://"); ok {
		f.wrong(it.At, `did you mean "`+trimmed+`"?`, "ssh is no URL, but [user@]host[:port]")
		return out
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if out.User = rest[:i]; !userName(out.User) {
			f.wrong(it.At, "", "%s is no user name", source.Quoted(out.User))
		}
		rest = rest[i+1:]
	}
	host, port, ok := splitHostPort(rest)
	if !ok {
		suggestion := ""
		if a, err := netip.ParseAddr(rest); err == nil && a.Is6() {
			suggestion = `an IPv6 address stands in brackets: "` + strings.TrimSuffix(it.Value, rest) + "[" + rest + `]"`
		}
		f.wrong(it.At, suggestion, "%s is not [user@]host[:port]", source.Quoted(it.Value))
		return out
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			f.wrong(it.At, "", "%s is no port: a number from 1 to 65535", source.Quoted(port))
		}
		out.Port = uint16(n)
	}
	switch {
	case host == "" && !public:
		f.wrong(it.At, "[user@]host[:port]", "no host: it may be left out only where the node has a public address")
	case host != "" && !hostName(host):
		f.wrong(it.At, "", "%s is no host: an address or a DNS name", source.Quoted(host))
	default:
		out.Host = host
	}
	if a, err := netip.ParseAddr(host); err == nil {
		f.outsideMesh(a, it.At)
	}
	return out
}

// splitHostPort takes host, host:port or [host]:port apart. It takes no host
// too, and gives the host without brackets.
func splitHostPort(s string) (host, port string, ok bool) {
	if rest, bracketed := strings.CutPrefix(s, "["); bracketed {
		host, rest, ok = strings.Cut(rest, "]")
		a, err := netip.ParseAddr(host)
		if !ok || err != nil || !a.Is6() {
			return "", "", false
		}
		port, ok = strings.CutPrefix(rest, ":")
		return host, port, rest == "" || ok && port != ""
	}
	host, port, colon := strings.Cut(s, ":")
	return host, port, !strings.Contains(port, ":") && colon == (port != "")
}

// userName says whether s may be a Unix account. What ssh would take for an
// option is none.
func userName(s string) bool {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return s != "" && len(s) <= 32 && strings.Contains(first, s[:1]) && strings.Trim(s, first+"0123456789.-") == ""
}

// hostName says whether s is an address or may be looked up. Nothing that ssh
// would take for an option is.
func hostName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		ok := label != "" && len(label) <= source.MaxLabel && !strings.HasPrefix(label, "-") &&
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
		if !ok {
			return false
		}
	}
	return true
}
