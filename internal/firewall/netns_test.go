package firewall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/config"
	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/engine/firewall"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
)

// The tests named TestNetns run in network namespaces, and the keeper in a
// process of its own: the test binary starts itself again.

const keeperEnv = "MOGGY_TEST_KEEPER"

func TestMain(m *testing.M) {
	if rules := os.Getenv(keeperEnv); rules != "" {
		if err := keeperMain(rules); err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// keeperMain is `moggy firewall`.
func keeperMain(rules string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	k := Keeper{
		Rules: rules, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Notify: func(state string) { fmt.Fprintln(os.Stderr, state) },
	}
	for {
		if err := k.Run(ctx, hup); !errors.Is(err, ErrReload) {
			return err
		}
	}
}

// The mesh of the tests: what cosmo sees of it is one interface, behind which
// the others are, each by its address.
//
//	ns mesh: .2 hub, .3 ari, .4 bianco ──── moggy0 .1 ns node (cosmo) docker0 ──── ns box (a container)
const (
	cosmo, hub, ari, bianco = 1, 2, 3, 4
)

const fleetFile = `
fleet "f" {}
site "dc" { kind = "datacenter" }
site "home" { kind = "home" }
node "cosmo" {
  site   = site.dc
  public = ["198.51.100.1"]
  hub    = false
}
node "hub" {
  site   = site.dc
  public = ["198.51.100.2"]
}
node "ari" { site = site.home }
node "bianco" { site = site.home }
allow "web" {
  from  = [node.ari]
  to    = [node.cosmo]
  ports = ["tcp/443", "udp/53", "tcp/9443", "tcp/8443"]
}
`

func v4(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", host)) }
func v6(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd77::%d", host)) }

// families are how the members are called in each.
func families() map[string]func(int) netip.Addr {
	return map[string]func(int) netip.Addr{"v4": v4, "v6": v6}
}

type world struct {
	*labtest.Namespaces
	t     *testing.T
	rules string // path of cosmo's
	log   *os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Namespaces: labtest.NewNamespaces(t, "mf"), t: t, rules: filepath.Join(t.TempDir(), "firewall.nft")}
	for _, ns := range []string{"node", "mesh", "box"} {
		w.Add(ns)
		w.Sh(ns, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
	}
	w.Run("ip", "link", "add", "moggy0", "netns", w.Name("node"), "address", "02:00:00:00:00:01", "type", "veth",
		"peer", "name", "m0", "address", "02:00:00:00:00:02", "netns", w.Name("mesh"))
	w.Run("ip", "link", "add", "docker0", "netns", w.Name("node"), "type", "veth", "peer", "name", "eth0", "netns", w.Name("box"))
	w.Sh("node", `ip addr add 10.77.0.1/16 dev moggy0; ip addr add fd77::1/64 dev moggy0 nodad; ip link set moggy0 up
		ip addr add 172.17.0.1/16 dev docker0; ip addr add fd99::1/64 dev docker0 nodad; ip link set docker0 up
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`)
	w.Sh("box", `ip link set eth0 up; ip addr add 172.17.0.2/16 dev eth0; ip addr add fd99::2/64 dev eth0 nodad
		ip route add default via 172.17.0.1; ip -6 route add default via fd99::1`)
	w.Sh("mesh", "ip link set m0 up; ip route add 172.17.0.0/16 via 10.77.0.1 dev m0 onlink; ip -6 route add fd99::/64 via fd77::1 dev m0 onlink")
	for _, addr := range families() {
		for host := hub; host <= bianco; host++ {
			bits := "/16"
			if addr(host).Is6() {
				bits = "/64"
			}
			w.Sh("mesh", fmt.Sprintf("ip addr add %s%s dev m0", addr(host), bits))
			// A TUN has no neighbours to discover.
			w.Sh("node", fmt.Sprintf("ip neigh replace %s lladdr 02:00:00:00:00:02 dev moggy0 nud permanent", addr(host)))
		}
		w.Sh("mesh", fmt.Sprintf("ip neigh replace %s lladdr 02:00:00:00:00:01 dev m0 nud permanent", addr(cosmo)))
	}
	w.write(fleetFile)
	return w
}

// write renders cosmo's rules into their file.
func (w *world) write(text string) {
	w.t.Helper()
	f, diags := config.Parse([]source.Text{{Name: "fleet.hcl", Content: []byte(text)}})
	if f == nil {
		w.t.Fatal(diags)
	}
	l := &fleet.Lock{}
	for i, n := range f.Nodes {
		l.Put(fleet.NodeLock{Name: n.Name, V4: v4(i + 1), V6: v6(i + 1)})
	}
	part, closed := firewall.New(f, l).Part(f.Nodes[0], "/usr/local/bin/moggy")
	if !closed {
		w.t.Fatal("cosmo is open to all")
	}
	if err := os.WriteFile(w.rules, part.Files[0].Content, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// load has the rules in force, with nobody to keep them.
func (w *world) load() {
	w.t.Helper()
	w.Sh("node", "nft -f "+w.rules)
}

// keep starts the keeper with no capability but CAP_NET_ADMIN, and waits until
// the rules are in force.
func (w *world) keep() *os.Process {
	w.t.Helper()
	var err error
	if w.log, err = os.Create(filepath.Join(w.t.TempDir(), "log")); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", w.Name("node"),
		"setpriv", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin", "--no-new-privs", os.Args[0])
	cmd.Env = append(os.Environ(), keeperEnv+"="+w.rules)
	cmd.Stderr = w.log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("the keeper's log:\n%s", w.said())
		}
	})
	w.await("READY", func() bool { return strings.Contains(w.said(), "READY=1") })
	return cmd.Process
}

func (w *world) said() string {
	b, err := os.ReadFile(w.log.Name())
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// await waits until the condition holds, and returns how long that took.
func (w *world) await(what string, holds func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if holds() {
			tick.Stop()
			return time.Since(start)
		}
		if time.Since(start) > 10*time.Second {
			w.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// in runs f with its thread in a namespace: sockets it opens stay there.
func (w *world) in(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		h, err := os.Open("/run/netns/" + w.Name(ns))
		if err == nil {
			defer h.Close()
			err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// echo answers at an address of a namespace with what it is sent.
func (w *world) echo(ns, network string, at netip.AddrPort) {
	w.t.Helper()
	err := w.in(ns, func() error {
		if network == "udp" {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			w.t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 1500)
				for {
					n, from, err := c.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteToUDPAddrPort(buf[:n], from)
				}
			}()
			return nil
		}
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); c.Close() }()
			}
		}()
		return nil
	})
	if err != nil {
		w.t.Fatalf("%s %s %s: %v", ns, network, at, err)
	}
}

// dial connects from one address to another.
func (w *world) dial(ns, network string, from netip.Addr, to netip.AddrPort, patience time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	var c net.Conn
	err := w.in(ns, func() (err error) {
		c, err = d.Dial(network, to.String())
		return err
	})
	return c, err
}

// talk says whether something answers, and how that went.
func talk(c net.Conn, patience time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("miaow")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

// expect checks that a member reaches a port, or is told at once that it may
// not.
func (w *world) expect(reach bool, network string, from netip.Addr, to netip.AddrPort) {
	w.t.Helper()
	const patience = 5 * time.Second
	c, err := w.dial("mesh", network, from, to, patience)
	if err == nil {
		defer c.Close()
		err = talk(c, patience)
	}
	var timeout net.Error
	switch {
	case reach && err != nil:
		w.t.Errorf("%s to %s/%s: %v", from, network, to, err)
	case !reach && err == nil:
		w.t.Errorf("%s reaches %s/%s", from, network, to)
	case !reach && errors.As(err, &timeout) && timeout.Timeout():
		w.t.Errorf("%s to %s/%s: not refused, but left to wait: %v", from, network, to, err)
	}
}

func (w *world) standing() bool {
	return exec.Command("ip", "netns", "exec", w.Name("node"), "nft", "list", "table", "inet", firewall.Table).Run() == nil
}
