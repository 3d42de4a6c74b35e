package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
)

func cats() *fleet.Fleet {
	return &fleet.Fleet{
		Nodes: []fleet.Node{{Name: "ari", Site: "a"}, {Name: "web", Site: "b"}, {Name: "ziggy", Site: "c"}},
		Services: []fleet.Service{
			{Name: "web", Image: "x", Count: 2, On: []fleet.Party{{Node: "ari"}, {Node: "ziggy"}}}, {Name: "blog", Static: "./blog"},
		},
	}
}

func TestFind(t *testing.T) {
	web := Subject{Service: "web", Nodes: []fleet.NodeName{"ari", "ziggy"}, Units: []string{"moggy-service-web.service"}}
	one := web
	one.Nodes = web.Nodes[1:]
	tests := []struct {
		name string
		only fleet.NodeName
		want Subject
		err  string
	}{
		{name: "web", want: web},
		{name: "service.web", want: web},
		{name: "web", only: "ziggy", want: one},
		{name: "node.web", want: Subject{Nodes: []fleet.NodeName{"web"}, Units: []string{"moggy-*"}}},
		{name: "ari", want: Subject{Nodes: []fleet.NodeName{"ari"}, Units: []string{"moggy-*"}}},
		{name: "web", only: "web", err: "no instance on web"},
		{name: "blog", err: "is a folder"},
		{name: "nothing", err: `no service or node "nothing"`},
		{name: "service.ari", err: `no service or node "ari"`},
		{name: "a.b", err: `no service or node "a.b"`},
	}
	for _, tt := range tests {
		got, err := Find(cats(), tt.name, tt.only)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q in it", tt.name, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

// journals are what each node's journalctl writes, call by call; a node that has
// no more calls does not answer.
type journals map[fleet.NodeName]*[]string

func calls(text ...string) *[]string { return &text }

func (j journals) Run(ctx context.Context, n fleet.NodeName, cmd ssh.Command) error {
	left := j[n]
	if left == nil || len(*left) == 0 {
		return errors.New("no route to it")
	}
	text := (*left)[0]
	*left = (*left)[1:]
	if cmd.Stdout == nil {
		return nil
	}
	if _, err := io.WriteString(cmd.Stdout, text); err != nil {
		return err
	}
	if cmd.Stdin != nil && len(*left) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func line(second int, text string) string {
	return fmt.Sprintf(`{"__CURSOR":"c%d","__REALTIME_TIMESTAMP":"%d000000","_SYSTEMD_UNIT":"moggy-service-web.service","MESSAGE":%s}`+"\n", second, second, text)
}

func TestRead(t *testing.T) {
	s, err := Find(cats(), "web", "")
	if err != nil {
		t.Fatal(err)
	}
	j := journals{"ari": calls(line(1, `"one"`) + line(3, `[104,255,10]`)), "ziggy": calls(line(2, `"\u001b[2Jtwo"`) + line(4, `null`))}
	var got []string
	show := func(l Line) error {
		got = append(got, fmt.Sprint(l.At.Unix(), " ", l.Node, " ", l.Text))
		return nil
	}
	if err := (Logs{Last: 10}).Read(t.Context(), j, s, show, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 ari one", "2 ziggy \uFFFD[2Jtwo", "3 ari h\uFFFD", "4 ziggy "}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	got = nil
	err = Logs{}.Read(t.Context(), journals{"ari": calls(line(1, `"one"`))}, s, show, nil)
	if err == nil || !strings.Contains(err.Error(), "ziggy: no route to it") || len(got) != 1 {
		t.Errorf("with one node away: %v, lines %v", err, got)
	}
}

// TestFollow loses a node's connection: it goes on where it was.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Find(cats(), "web", "ari")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		j := journals{"ari": calls(line(1, `"past"`), line(2, `"live"`), line(3, `"after"`))}
		var got, gone []string
		err = Logs{Follow: true}.Read(ctx, j, s, func(l Line) error {
			if got = append(got, l.Text); l.Text == "after" {
				stop()
			}
			return nil
		}, func(n fleet.NodeName, _ error) { gone = append(gone, string(n)) })
		if err != nil || strings.Join(got, " ") != "past live after" || len(gone) != 1 {
			t.Errorf("%v: lines %v, connections lost %v", err, got, gone)
		}
	})
}

// TestRestart stops at the first instance that is not well.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Find(cats(), "web", "")
		if err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		observe := func(_ context.Context, n fleet.NodeName) (*fleet.Observed, error) {
			o := &fleet.Observed{Units: []fleet.UnitState{{Name: "moggy-service-web.service", Active: "active"}}}
			if time.Since(since) < 5*time.Second || n == "ziggy" {
				o.Failing = map[string]string{"moggy-service-web.service": "status 500"}
			}
			return o, nil
		}
		var told []string
		tell := func(n fleet.NodeName, text string) { told = append(told, string(n)+" "+text) }
		err = Restart(t.Context(), journals{"ari": calls(""), "ziggy": calls("")}, observe, s, tell)
		if err == nil || !strings.Contains(err.Error(), "ziggy: service web is not well: status 500") {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff([]string{"ari restarting", "ari well after 5.0 s", "ziggy restarting"}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add([]byte(line(1, `"one"`)))
	f.Add([]byte(line(1, `[1,2,300]`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parse("ari", b)
		if err == nil && strings.ContainsAny(l.Text, "\x1b\n\r\x00") {
			t.Errorf("%q would be obeyed", l.Text)
		}
	})
}
