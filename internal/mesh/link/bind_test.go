package link

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// TestPlainClient: an unmodified wireguard-go is a phone that roams.
func TestPlainClient(t *testing.T) {
	n := nodes(t, 2)
	hub, other := n[0], n[1]
	phone := testKey(t, 50)
	phoneKey, hubKey := phone.Public(), hub.key.Public()
	if err := hub.dev.dev.IpcSet(fmt.Sprintf("public_key=%s\nallowed_ip=10.0.0.99/32\n", hex.EncodeToString(phoneKey[:]))); err != nil {
		t.Fatal(err)
	}
	tun := tuntest.NewChannelTUN()
	dev := device.NewDevice(tun.TUN(), conn.NewStdNetBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(dev.Close)
	if err := dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=10.0.0.0/24\n",
		hex.EncodeToString(phone[:]), hex.EncodeToString(hubKey[:]), hub.addr)); err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("10.0.0.99")
	exchange := func(what string) {
		t.Helper()
		for _, x := range []struct {
			from, to *tuntest.ChannelTUN
			msg      []byte
		}{{tun, hub.tun, tuntest.Ping(hub.ip, ip)}, {hub.tun, tun, tuntest.Ping(ip, hub.ip)}} {
			x.from.Outbound <- x.msg
			select {
			case <-x.to.Inbound:
			case <-time.After(3 * time.Second):
				t.Fatalf("%s: lost", what)
			}
		}
	}
	exchange("at first")
	was := hub.uapi(t, &node{key: phone}, "endpoint")
	if err := dev.IpcSet("listen_port=0\n"); err != nil { // another port: it roams
		t.Fatal(err)
	}
	exchange("from another port")
	if now := hub.uapi(t, &node{key: phone}, "endpoint"); now == was || now == "" {
		t.Errorf("the hub still sends to %s", was)
	}
	hub.direct(other)
	other.direct(hub)
	if !hub.send(t, other, 2*time.Second) {
		t.Error("a node of the fleet does not get through beside it")
	}
}

// TestBind is the conduct that wireguard-go expects of every conn.Bind.
func TestBind(t *testing.T) {
	b := NewBind(BindConfig{Control: &heard{}})
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	if port == 0 || len(fns) == 0 {
		t.Fatalf("port %d, %d functions", port, len(fns))
	}
	if _, _, err := b.Open(0); err != conn.ErrBindAlreadyOpen { //nolint:errorlint // the interface says so
		t.Errorf("opened twice: %v", err)
	}
	ep, err := b.ParseEndpoint(fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		bufs, sizes, eps := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, 2048)
		}
		for {
			n, err := fns[0](bufs, sizes, eps)
			if err != nil {
				got <- err.Error()
				return
			}
			for i := range n {
				if sizes[i] > 0 {
					got <- fmt.Sprintf("%d from %s", sizes[i], eps[i].DstToString())
				}
			}
		}
	}()
	hello := make([]byte, 148)
	hello[0] = 1
	if err := b.Send([][]byte{hello}, ep); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != fmt.Sprintf("148 from 127.0.0.1:%d", port) {
		t.Errorf("received %s", s)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if s := <-got; !strings.Contains(s, net.ErrClosed.Error()) {
		t.Errorf("after Close: %s", s)
	}
	fns, again, err := b.Open(port)
	if err != nil || again != port || len(fns) == 0 {
		t.Errorf("opened again on port %d: %d, %v", port, again, err)
	}
	b.Close()
}

func TestEndpoints(t *testing.T) {
	n := nodes(t, 2)
	a, b := n[0], n[1]
	ep, err := a.bind.ParseEndpoint(endpointOf(b.id))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := netip.ParseAddrPort(ep.DstToString()); err != nil {
		t.Errorf("without a route wg(8) is told %q", ep.DstToString())
	}
	a.direct(b)
	if ep.DstToString() != b.addr.String() || ep.DstIP() != b.addr.Addr() {
		t.Errorf("direct: %s", ep.DstToString())
	}
	for _, bad := range []string{"", "moggy:", "moggy:zz", "moggy:0102030405060708", "moggy:" + b.id.String() + "00", "1.2.3.4", "[::1]:x"} {
		if _, err := a.bind.ParseEndpoint(bad); err == nil {
			t.Errorf("%q is taken for an endpoint", bad)
		}
	}
	s, err := a.bind.ParseEndpoint("[::ffff:192.0.2.1]:7")
	if err != nil || s.DstToString() != "192.0.2.1:7" {
		t.Errorf("a mapped address: %v, %v", s, err)
	}
}
