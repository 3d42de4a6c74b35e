package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func hub(name fleet.NodeName, address string) fleet.MeshNode {
	return fleet.MeshNode{Name: name, Hub: true, V6: netip.MustParseAddr(address)}
}

// silent is a hub that says nothing.
func silent(ctx context.Context, _ netip.Addr) error {
	<-ctx.Done()
	return context.DeadlineExceeded
}

func TestMesh(t *testing.T) {
	up := &fleet.MeshStatus{Version: 1, Peers: []fleet.PeerStatus{
		{Name: "cosmo", Path: fleet.PathNone}, {Name: "maco", Path: fleet.PathRelayed, RTTMicro: 900},
	}}
	down := &fleet.MeshStatus{Version: 1, Peers: []fleet.PeerStatus{{Name: "cosmo", Path: fleet.PathDirectV4}}}
	tests := map[string]struct {
		hubs  []fleet.MeshNode
		mesh  *fleet.MeshStatus
		reach func(context.Context, netip.Addr) error
		took  time.Duration
		want  string
	}{
		"no other hub": {nil, nil, nil, 0, ""},
		"one answers": {[]fleet.MeshNode{hub("cosmo", "fd00::1"), hub("maco", "fd00::2")}, nil, func(ctx context.Context, a netip.Addr) error {
			if a == netip.MustParseAddr("fd00::2") {
				return nil
			}
			return silent(ctx, a)
		}, 0, ""},
		"they drop, but the agent hears one":  {[]fleet.MeshNode{hub("cosmo", "fd00::1"), hub("maco", "fd00::2")}, up, silent, 4 * time.Second, ""},
		"the agent hears only what is no hub": {[]fleet.MeshNode{hub("cosmo", "fd00::1")}, up, silent, 20 * time.Second, "no hub answers (cosmo: no path)"},
		"what the agent knew is old": {[]fleet.MeshNode{hub("cosmo", "fd00::1")}, up, func(context.Context, netip.Addr) error {
			return errors.New("no route to host")
		}, 20 * time.Second, "no hub answers"},
		"nothing comes back": {[]fleet.MeshNode{hub("cosmo", "fd00::1")}, down, silent, 20 * time.Second, "cosmo: direct-v4, but nothing comes back"},
		"no agent":           {[]fleet.MeshNode{hub("cosmo", "fd00::1")}, nil, silent, 20 * time.Second, "the agent does not answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := Machine{
					Hubs: func() []fleet.MeshNode { return tt.hubs }, Reach: tt.reach,
					Mesh: func(context.Context) *fleet.MeshStatus { return tt.mesh },
				}
				began := time.Now()
				err := m.Await(t.Context(), []fleet.Check{{Name: "the mesh", Kind: fleet.CheckMesh}})
				if took := time.Since(began); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
				if tt.want == "" && err == nil {
					return
				}
				var f *Failure
				if !errors.As(err, &f) || tt.want == "" || !strings.Contains(err.Error(), `check "the mesh": not within 20s: `) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			})
		})
	}
}

// server is something that listens, and says that to whoever comes.
func server(t *testing.T, says string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, says)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestSSH(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ says, want string }{
		"sshd":             {"SSH-2.0-OpenSSH_9.2\r\n", ""},
		"with lines":       {"be welcome\r\nSSH-2.0-x\r\n", ""},
		"another":          {"HTTP/1.1 400 Bad Request\r\n\r\n", "no SSH server"},
		"nothing":          {"", "no SSH server"},
		"no end of a line": {strings.Repeat("x", 100<<10), "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := new(Machine).Look(t.Context(), fleet.Check{Kind: fleet.CheckSSH, Address: server(t, tt.says)})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	if err := new(Machine).Look(t.Context(), fleet.Check{Kind: fleet.CheckSSH, Address: gone}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		m := Machine{Run: func(_ context.Context, _ []string, name string, _ ...string) ([]byte, error) {
			n := runs.Add(1)
			switch {
			case name == "/missing":
				return nil, fs.ErrNotExist
			case name == "/soon" && n < 5:
				return nil, errors.New("not yet")
			case name == "/never":
				return nil, errors.New("exit status 1: so ill")
			}
			return nil, nil
		}}
		began := time.Now()
		err := m.Await(t.Context(), []fleet.Check{
			{Name: "a", Kind: fleet.CheckRun, Command: []string{"/soon"}},
			{Name: "b", Kind: fleet.CheckRun, Command: []string{"/missing"}},
			{Name: "c", Kind: "dance"},
		})
		if err != nil || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		began = time.Now()
		err = m.Await(t.Context(), []fleet.Check{
			{Name: "x", Kind: fleet.CheckRun, Command: []string{"/never"}, Seconds: 7},
			{Name: "y", Kind: fleet.CheckRun, Command: []string{"/never"}, Seconds: 3},
		})
		if took := time.Since(began); err == nil || err.Error() != `check "x": not within 7s: exit status 1: so ill` || took != 7*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// TestKnockGoesThroughTheMeshAlone: what listens elsewhere is no hub.
func TestKnockGoesThroughTheMeshAlone(t *testing.T) {
	if _, err := net.InterfaceByName(fleet.MeshInterface); err == nil {
		t.Skip("this machine has a mesh")
	}
	if err := Knock(t.Context(), netip.MustParseAddr("127.0.0.1")); err == nil {
		t.Error("an answer that did not come through the mesh counted")
	}
}
