package examine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func nobody(context.Context, []string, string, ...string) ([]byte, error) { return nil, fs.ErrNotExist }

// TestHere looks at the machine that the test runs on.
func TestHere(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	x := Examiner{
		Root: "/", Run: nobody, Now: time.Now,
		Log: func(context.Context, string, int) []string { return []string{"it broke"} },
		Observe: func(context.Context) (fleet.Observed, error) {
			return fleet.Observed{Units: []fleet.UnitState{{Name: "web.service", Active: "failed"}}}, nil
		},
	}
	e := x.Examine(t.Context())
	if e.Observed == nil || len(e.Mounts) == 0 || e.Mounts[0].Total == 0 || e.Clock.IsZero() {
		t.Errorf("facts are missing: %+v", e)
	}
	if diff := cmp.Diff([]fleet.UnitLog{{Unit: "web.service", Lines: []string{"it broke"}}}, e.Logs); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	for _, fact := range []string{"peers", "systemd", "nftables"} { // there is no agent, no systemctl, no nft
		if e.Unknown[fact] == "" {
			t.Errorf("%s is not among what is unknown: %v", fact, e.Unknown)
		}
	}
	_, number, _ := net.SplitHostPort(conn.LocalAddr().String())
	sockets, err := x.sockets("udp")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(sockets, func(s socket) bool { return itoa(s.port) == number })
	if i < 0 {
		t.Fatalf("port %s is not among %+v", number, sockets)
	}
	if owners := x.owners(t.Context(), sockets[i:i+1]); owners[sockets[i].inode] == "" {
		t.Errorf("our own socket has no owner: %+v", sockets[i])
	}
}

func itoa(n uint16) string {
	_, port, _ := net.SplitHostPort((&net.UDPAddr{Port: int(n)}).String())
	return port
}

// TestHalfBroken: a fact that hangs, one that panics, one that fails leave the
// others as they are.
func TestHalfBroken(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		x := Examiner{
			Root: root, Now: time.Now,
			Run: func(_ context.Context, _ []string, name string, _ ...string) ([]byte, error) {
				if name == "nft" {
					panic("nft is strange")
				}
				return []byte("degraded\n"), errors.New("exit status 1")
			},
			Log:     func(context.Context, string, int) []string { return nil },
			Observe: func(context.Context) (fleet.Observed, error) { <-release; return fleet.Observed{}, nil },
		}
		started := time.Now()
		e := x.Examine(t.Context())
		if took := time.Since(started); took > overall {
			t.Errorf("took %s, want at most %s", took, overall)
		}
		if e.Observed != nil || e.Systemd != "degraded" || e.NTP == fleet.Uncertain {
			t.Errorf("examination: %+v", e)
		}
		for fact, why := range map[string]string{"observed": "not learned in time", "logs": "not learned in time", "kernel": "nft is strange"} {
			if e.Unknown[fact] != why {
				t.Errorf("%s is unknown because %q, want %q", fact, e.Unknown[fact], why)
			}
		}
		close(release)
	})
}

func TestParseSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:CAA5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0 0
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 2 0 0
   2: garbage
`
	udp, err := parseSockets(strings.NewReader(table), "udp")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]socket{{"udp", 51877, "12345"}, {"udp", 22, "777"}}, udp, cmp.AllowUnexported(socket{})); diff != "" {
		t.Errorf("udp (-want +got):\n%s", diff)
	}
	tcp, err := parseSockets(strings.NewReader(table), "tcp")
	if err != nil || len(tcp) != 1 || tcp[0].port != 22 {
		t.Errorf("tcp: %v, %v", tcp, err)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("0: 00000000:CAA5 00000000:0000 07 0:0 0:0 0 0 0 12345")
	f.Fuzz(func(t *testing.T, table string) {
		sockets, err := parseSockets(strings.NewReader(table), "tcp")
		if err == nil && len(sockets) > strings.Count(table, "\n")+1 {
			t.Errorf("%d sockets in %d lines", len(sockets), strings.Count(table, "\n")+1)
		}
	})
}

// TestOwner reads control groups as both versions write them.
func TestOwner(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/moggy-agent.service\n":                          "moggy-agent.service",
		"1:name=systemd:/system.slice/lab.service/system.slice/x.service": "x.service",
		"0::/user.slice/user-0.slice/user@0.service/app.slice\n":          "cat",
	} {
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(dir+"/cgroup", []byte(text), 0o600), os.WriteFile(dir+"/comm", []byte("cat\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := owner(dir); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
