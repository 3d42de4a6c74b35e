package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/lab/labtest"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// The tests named TestNetns run real agents, each a process of its own, in
// network namespaces: the test binary starts itself again as agent.

const agentEnv = "MOGGY_TEST_AGENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(agentEnv); dir != "" {
		if err := agentMain(dir); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	if arg := os.Getenv(joinEnv); arg != "" {
		if err := joinMain(arg); err != nil {
			fmt.Fprintln(os.Stderr, "join:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// agentMain is `moggy agent` with all its files in dir. Its mount namespace is
// its own: wg(8)'s socket would be shared otherwise.
func agentMain(dir string) error {
	if err := os.MkdirAll("/run/wireguard", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run/wireguard", "tmpfs", 0, ""); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	a := New(Options{
		ConfigPath: filepath.Join(dir, "mesh.json"),
		KeyPath:    filepath.Join(dir, "mesh.key"),

		GatewayKeyPath: filepath.Join(dir, "gateway.key"),
		SocketPath:     filepath.Join(dir, "agent.sock"),
		StateDir:       dir,
		Interface:      fleet.MeshInterface,
		Version:        "test",
		Log:            slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	a.clocks = func() clocks {
		c := readClocks()
		if text, err := os.ReadFile(filepath.Join(dir, "clock")); err == nil {
			off, _ := time.ParseDuration(strings.TrimSpace(string(text)))
			c.wall += off
		}
		return c
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			_ = a.Reload(ctx)
		}
	}()
	return a.Run(ctx)
}

// world is a small internet: one bridge, machines on it, and homes behind
// routers.
type world struct {
	*labtest.Namespaces
	t     *testing.T
	nodes map[string]*machine
	conf  fleet.AgentConfig
}

type machine struct {
	w    *world
	name string
	ns   string
	dir  string
	key  wire.PrivateKey
	keys []wire.PrivateKey // further ones in its file
	node fleet.MeshNode
	cmd  *exec.Cmd
	log  *os.File
}

const testPort = 51877

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		Namespaces: labtest.NewNamespaces(t, "mt"), t: t, nodes: map[string]*machine{},
		conf: fleet.AgentConfig{
			Version: 1, Fleet: "test", Port: testPort, MTU: 1280,
			V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48"),
		},
	}
	w.Add("inet")
	w.Sh("inet", "ip link add br0 type bridge && ip link set br0 up && ip addr add 203.0.113.1/24 dev br0 && ip addr add 2001:db8::1/64 dev br0 nodad")
	w.Sh("inet", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	return w
}

// plug connects a namespace to the internet's bridge; addrs are on its end.
func (w *world) plug(name, dev string, addrs ...string) {
	w.t.Helper()
	peer := "p" + name
	w.Run("ip", "link", "add", dev, "netns", w.Name(name), "type", "veth", "peer", "name", peer, "netns", w.Name("inet"))
	w.Sh("inet", "ip link set "+peer+" master br0 up")
	w.Sh(name, "ip link set "+dev+" up")
	for _, a := range addrs {
		if strings.Contains(a, ":") {
			w.Sh(name, "ip addr add "+a+"/64 dev "+dev+" nodad; ip -6 route replace default via 2001:db8::1")
		} else {
			w.Sh(name, "ip addr add "+a+"/24 dev "+dev+"; ip route replace default via 203.0.113.1")
		}
	}
}

// public adds a machine on the open internet.
func (w *world) public(name string, hub bool, addrs ...string) *machine {
	w.t.Helper()
	w.Add(name)
	w.plug(name, "eth0", addrs...)
	m := w.member(name)
	m.node.Hub = hub
	for _, a := range addrs {
		m.node.Public = append(m.node.Public, netip.AddrPortFrom(netip.MustParseAddr(a), testPort))
	}
	return m
}

// home adds a router with a NAT for IPv4 and, if v6 is a prefix's start like
// "2001:db8:a::", a stateful firewall for IPv6.
func (w *world) home(router, v4, v6 string) {
	w.t.Helper()
	w.Add(router)
	if v6 == "" {
		w.plug(router, "wan", v4)
	} else {
		link := "2001:db8::" + strings.TrimPrefix(v4, "203.0.113.")
		w.plug(router, "wan", v4, link)
		w.Sh("inet", "ip -6 route add "+v6+"/64 via "+link)
	}
	w.Sh(router, "ip link add lan type bridge && ip link set lan up && ip addr add 192.168.1.1/24 dev lan")
	if v6 != "" {
		w.Sh(router, "ip addr add "+v6+"1/64 dev lan nodad")
	}
	w.Sh(router, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	w.Sh(router, `nft -f - <<'E'
table inet home {
	chain translate { type nat hook postrouting priority srcnat; meta nfproto ipv4 oifname "wan" masquerade; }
	chain guard { type filter hook forward priority filter; policy accept;
		iifname "wan" ct state established,related accept
		iifname "wan" drop
	}
	chain own { type filter hook input priority filter; policy accept;
		iifname "wan" meta l4proto udp drop
	}
}
E`)
}

// behind adds a machine at home; host is the last number of its addresses.
func (w *world) behind(name, router, v6 string, host int) *machine {
	w.t.Helper()
	w.Add(name)
	w.Run("ip", "link", "add", "eth0", "netns", w.Name(name), "type", "veth", "peer", "name", "l"+name, "netns", w.Name(router))
	w.Sh(router, "ip link set l"+name+" master lan up")
	w.Sh(name, fmt.Sprintf("ip link set eth0 up; ip addr add 192.168.1.%d/24 dev eth0; ip route add default via 192.168.1.1", host))
	if v6 != "" {
		w.Sh(name, fmt.Sprintf("ip addr add %s%d/64 dev eth0 nodad; ip -6 route add default via %s1", v6, host, v6))
	}
	return w.member(name)
}

func (w *world) member(name string) *machine {
	w.t.Helper()
	key, err := wire.NewPrivateKey(randomReader{})
	if err != nil {
		w.t.Fatal(err)
	}
	i := len(w.nodes) + 1
	m := &machine{w: w, name: name, ns: w.Name(name), dir: w.t.TempDir(), key: key}
	m.node = fleet.MeshNode{
		Name: fleet.NodeName(name), Key: key.Public(),
		V4: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i)), V6: netip.MustParseAddr(fmt.Sprintf("fd77::%x", i)),
	}
	w.nodes[name] = m
	return m
}

type randomReader struct{}

func (randomReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(random64())
	}
	return len(b), nil
}

// config is mesh.json with everybody in it.
func (w *world) config() fleet.AgentConfig {
	c := w.conf
	for _, m := range w.nodes {
		c.Nodes = append(c.Nodes, m.node)
	}
	slices.SortFunc(c.Nodes, func(a, b fleet.MeshNode) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return c
}

func (m *machine) write(c fleet.AgentConfig) {
	m.w.t.Helper()
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "mesh.json"), b, 0o644)
	}
	if err == nil {
		text := m.key.Encode()
		for _, k := range m.keys {
			text = append(text, k.Encode()...)
		}
		err = os.WriteFile(filepath.Join(m.dir, "mesh.key"), text, 0o600)
	}
	if err != nil {
		m.w.t.Fatal(err)
	}
}

// start runs the agent and waits until it answers.
func (m *machine) start() {
	m.w.t.Helper()
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.log = log
	self, err := os.Executable()
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.cmd = exec.Command("ip", "netns", "exec", m.ns, self)
	m.cmd.Env = append(os.Environ(), agentEnv+"="+m.dir)
	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		m.w.t.Fatal(err)
	}
	m.w.t.Cleanup(func() { m.stop(syscall.SIGKILL) })
	m.w.wait(m.name+" answers", 10*time.Second, func() bool {
		_, err := m.status("")
		return err == nil
	})
}

func (m *machine) stop(sig os.Signal) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(sig)
	_ = m.cmd.Wait()
	m.cmd = nil
	m.log.Close()
	if m.w.t.Failed() && sig == syscall.SIGKILL {
		b, _ := os.ReadFile(filepath.Join(m.dir, "log"))
		m.w.t.Logf("log of %s:\n%s", m.name, b)
	}
}

// reload makes the agent read its configuration again.
func (m *machine) reload() { _ = m.cmd.Process.Signal(syscall.SIGHUP) }

func (m *machine) ask(method, path string, body io.Reader) (*http.Response, error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(m.dir, "agent.sock"))
		},
	}}
	req, err := http.NewRequest(method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

func (m *machine) status(query string) (fleet.MeshStatus, error) {
	var s fleet.MeshStatus
	resp, err := m.ask("GET", "/status"+query, nil)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// path is how m reaches the other, probing first.
func (m *machine) path(other *machine) fleet.PeerStatus { return m.peerAs("?probe=1", other) }

// peer is the same as it stands, for those that talk; nothing where m does not
// answer.
func (m *machine) peer(other *machine) fleet.PeerStatus { return m.peerAs("", other) }

func (m *machine) peerAs(query string, other *machine) fleet.PeerStatus {
	m.w.t.Helper()
	s, err := m.status(query)
	if err != nil && query != "" {
		m.w.t.Fatal(err)
	}
	for _, p := range s.Peers {
		if p.Name == other.node.Name {
			return p
		}
	}
	return fleet.PeerStatus{}
}

func (w *world) wait(what string, limit time.Duration, ok func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if ok() {
			tick.Stop()
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// startAll gives everybody the same configuration and starts them.
func (w *world) startAll() {
	w.t.Helper()
	c := w.config()
	for _, m := range w.nodes {
		m.write(c)
	}
	for _, m := range w.nodes {
		m.start()
	}
}

// ping sends n echo requests over the mesh, one every interval, and returns how
// many were lost.
func (m *machine) ping(to netip.Addr, n int, interval string) (lost int, out string) {
	cmd := exec.Command("ip", "netns", "exec", m.ns, "ping", "-n", "-c", fmt.Sprint(n), "-i", interval, "-W", "1", to.String())
	b, _ := cmd.CombinedOutput() // lost packets are an error to ping
	var received int
	if i := strings.Index(string(b), "packets transmitted, "); i >= 0 {
		fmt.Sscanf(string(b)[i:], "packets transmitted, %d received", &received)
	}
	return n - received, string(b)
}

// pidOf is the agent's process: `ip netns exec` becomes it.
func pidOf(m *machine) string { return fmt.Sprint(m.cmd.Process.Pid) }
