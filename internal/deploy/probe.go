package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/doctor"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func passed(format string, args ...any) doctor.Result {
	return doctor.Result{Status: doctor.Passed, Text: fmt.Sprintf(format, args...)}
}

func failedProbe(next, format string, args ...any) doctor.Result {
	return doctor.Result{Status: doctor.Failed, Text: fmt.Sprintf(format, args...), Next: next}
}

// own runs a probe of the operator's machine, or of the fleet as a whole.
func (d *Doctor) own(ctx context.Context, name doctor.Name) doctor.Result {
	if res, broken := d.Broken[name]; broken {
		return res
	}
	switch name {
	case doctor.Client:
		out, err := exec.CommandContext(ctx, "ssh", "-V").CombinedOutput()
		if err != nil {
			return failedProbe("apt-get install openssh-client", "there is no ssh client: %v", err)
		}
		version, _, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
		return passed("%s", version)
	case doctor.Files:
		return passed("%d nodes, generation %d", len(d.Fleet.Nodes), d.Lock.Generation)
	case doctor.Config:
		if err := d.SSH.Use(d.Fleet, d.Lock); err != nil {
			return failedProbe("make room there, or set XDG_RUNTIME_DIR", "what ssh is told cannot be written: %v", err)
		}
		return passed("what ssh is told can be written")
	case doctor.Keys:
		return d.keys(ctx)
	case doctor.Network:
		return d.network()
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.facts.JudgeAll(name)
}

// keys looks for something to show to an sshd: what an agent holds, or a file
// that ssh would try. There are other ways (tokens, tickets), so that none of
// these is no more than a warning.
func (d *Doctor) keys(ctx context.Context) doctor.Result {
	out, err := exec.CommandContext(ctx, "ssh-add", "-l").Output()
	if n := strings.Count(string(out), "\n"); err == nil && n > 0 {
		return passed("your agent holds %d", n)
	}
	alias := "localhost"
	for _, n := range d.Fleet.Nodes {
		if ways := d.SSH.Ways(n.Name); len(ways) > 0 {
			alias = ways[0].Alias
			break
		}
	}
	settings, err := d.SSH.Settings(ctx, alias)
	if err != nil {
		return doctor.Result{Status: doctor.Warned, Text: "not known: " + err.Error()}
	}
	home, _ := os.UserHomeDir()
	for _, file := range settings["identityfile"] {
		if rest, ok := strings.CutPrefix(file, "~/"); ok {
			file = home + "/" + rest
		}
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
			return passed("%s", file)
		}
	}
	return doctor.Result{
		Status: doctor.Warned, Text: "you have no key to show: none in an agent, none in ~/.ssh",
		Next: "ssh-add; or ssh-keygen -t ed25519, and its public half into operators = {...} in the file",
	}
}

// network asks the kernel for a way to the fleet's addresses, one per family.
// Nothing is sent.
func (d *Doctor) network() doctor.Result {
	var have, lack []string
	for _, family := range []struct {
		name string
		of   func(fleet.Node) (netip.Addr, bool)
	}{{"IPv4", fleet.Node.PublicV4}, {"IPv6", fleet.Node.PublicV6}} {
		for _, n := range d.Fleet.Nodes {
			addr, ok := family.of(n)
			if !ok {
				continue
			}
			if routed(addr) {
				have = append(have, family.name)
			} else {
				lack = append(lack, family.name)
			}
			break
		}
	}
	switch {
	case len(have) == 0 && len(lack) > 0:
		return failedProbe("ip route", "this machine has no way out: no route for %s", strings.Join(lack, " or "))
	case len(lack) > 0:
		return passed("%s; no %s here", strings.Join(have, ", "), strings.Join(lack, ", "))
	case len(have) == 0:
		return passed("not known: the file has no public address")
	}
	return passed("%s", strings.Join(have, ", "))
}

// routed says whether the kernel knows a way to an address.
func routed(addr netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// door is where a route's sshd is, by all of ssh's configuration.
type door struct {
	route      ssh.Route
	host, port string
	proxy      string // what ssh goes through by the operator's own configuration
}

// doors are the straight ways to a node.
func (d *Doctor) doors(ctx context.Context, n fleet.Node) ([]door, error) {
	var out []door
	for _, r := range d.SSH.Ways(n.Name) {
		if r.Jump != "" {
			continue
		}
		s, err := d.SSH.Settings(ctx, r.Alias)
		if err != nil {
			return nil, fmt.Errorf("ssh -G %s: %w", r.Alias, err)
		}
		get := func(key string) string {
			if v := s[key]; len(v) > 0 && v[0] != "none" {
				return v[0]
			}
			return ""
		}
		out = append(out, door{r, get("hostname"), get("port"), get("proxyjump") + get("proxycommand")})
	}
	return out, nil
}

// resolve looks names up. An address needs none of that; behind a proxy of the
// operator's own it is the proxy's affair.
func (d *Doctor) resolve(ctx context.Context, n fleet.Node) doctor.Result {
	doors, err := d.doors(ctx, n)
	if err != nil {
		return failedProbe("ssh -G "+string(n.Name), "%v", err)
	}
	for _, at := range doors {
		if _, err := netip.ParseAddr(at.host); err == nil || at.proxy != "" {
			continue
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", at.host)
		if err != nil {
			if len(n.Public) > 0 {
				return doctor.Result{Status: doctor.Warned, Text: fmt.Sprintf("%s is not found: %v", at.host, why(err)), Next: "getent hosts " + at.host}
			}
			return failedProbe("getent hosts "+at.host+"; an address in the file needs no DNS: public = [...]", "%s is not found: %v", at.host, why(err))
		}
		return passed("%s is %s", at.host, addrs[0].Unmap())
	}
	return passed("an address, which needs no DNS")
}

func why(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.Err
	}
	return err.Error()
}

// tcp knocks at every address of a node side by side.
func (d *Doctor) tcp(ctx context.Context, n fleet.Node) doctor.Result {
	doors, err := d.doors(ctx, n)
	if err != nil {
		return failedProbe("", "%v", err)
	}
	if len(doors) == 0 {
		return failedProbe("give a node with a public address to the fleet, or ssh = \"...\" to this one",
			"there is no way to it: it has no address outside the mesh, and there is no hub")
	}
	answers := make([]error, len(doors))
	took := make([]time.Duration, len(doors))
	var wg sync.WaitGroup
	for i, at := range doors {
		wg.Go(func() {
			if at.proxy == "" {
				started := d.Now()
				answers[i] = knock(ctx, at)
				took[i] = d.Now().Sub(started)
			}
		})
	}
	wg.Wait()
	return d.open(n, doors, answers, took)
}

// knockTimeout leaves time for a SYN to be lost twice (RFC 6298: sent again after
// 1 s, then after 2 s more).
const knockTimeout = 3500 * time.Millisecond

// knock is a TCP connection to an sshd.
func knock(ctx context.Context, at door) error {
	ctx, stop := context.WithTimeout(ctx, knockTimeout)
	defer stop()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(at.host, at.port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// open says which addresses answered; the first that did is the way from now
// on.
func (d *Doctor) open(n fleet.Node, doors []door, answers []error, took []time.Duration) doctor.Result {
	var good, bad []string
	silent, unrouted := true, 0
	for i, at := range doors {
		where := net.JoinHostPort(at.host, at.port)
		switch err := answers[i]; {
		case err == nil:
			if len(good) == 0 {
				d.mu.Lock()
				d.routes[n.Name] = at.route
				d.mu.Unlock()
			}
			how := took[i].Round(100 * time.Microsecond).String()
			if at.proxy != "" {
				how = "through your own " + at.proxy
			}
			good = append(good, where+" ("+how+")")
		case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL):
			unrouted++
			if unrouted == len(doors) {
				bad = append(bad, where+": no route to it from here")
			}
		case errors.Is(err, syscall.ECONNREFUSED):
			silent = false
			bad = append(bad, where+" refuses: its sshd does not run")
		case errors.Is(err, syscall.EHOSTUNREACH):
			bad = append(bad, where+": no such host there")
		default:
			bad = append(bad, where+" does not answer")
		}
	}
	text := strings.Join(append(good, bad...), ", ")
	switch {
	case len(good) == 0:
		res := failedProbe("at its keyboard, or its provider's console: systemctl status ssh sshd", "%s", text)
		res.Silent = silent
		return res
	case len(bad) > 0:
		return doctor.Result{Status: doctor.Warned, Text: text, Next: "compare the addresses in the file with: ip address, there"}
	}
	return passed("%s", text)
}
