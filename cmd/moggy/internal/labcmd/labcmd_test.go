package labcmd

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/cli"
	"github.com/moggyfleet/moggy/internal/lab"
)

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]int{"0%": 0, "10%": 100, "2.5 %": 25, "100%": 1000, "33": 330, "0.1%": 1} {
		if got, err := parsePercent(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d thousandths", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "-1%", "100.1%", "ten", "NaN", "Inf"} {
		if got, err := parsePercent(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestCommandAfterNode(t *testing.T) {
	for _, c := range [][2][]string{
		{{"--", "ls", "--", "-l"}, {"ls", "--", "-l"}}, {{"ls", "-l"}, {"ls", "-l"}}, {{"--"}, {}}, {{}, {}},
	} {
		if got := command(c[0]); !slices.Equal(got, c[1]) {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestShowDrill(t *testing.T) {
	d := lab.Drill{Version: 1, Rounds: []lab.Round{
		{Node: "cosmo", Pairs: 20, Silence: lab.Seconds(1240 * time.Millisecond), Worst: "ari -> bianco", Back: lab.Seconds(3 * time.Second), Returned: true},
		{Node: "ari", Pairs: 20, Back: lab.Seconds(time.Second), Returned: true},
	}}
	show := func() string {
		var out strings.Builder
		l := &app{App: cli.New("0.0.0-test", nil, &out, &out)}
		if err := l.showDrill(d); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	want := `FAILED  THE OTHERS' PAIRS  LONGEST SILENCE  OF             BACK AFTER
cosmo   all 20 kept        1.2 s            ari -> bianco  3.0 s
ari     all 20 kept        none                            1.0 s

Whichever one failed, no two others were apart for longer than 1.2 s.
`
	if got := show(); got != want || !d.Passed() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	d.Rounds[1].Lost = []string{"ziggy -> bianco"}
	d.Rounds[1].Returned = false
	want = `FAILED  THE OTHERS' PAIRS                      LONGEST SILENCE  OF             BACK AFTER
cosmo   all 20 kept                            1.2 s            ari -> bianco  3.0 s
ari     1 of 20 lost, such as ziggy -> bianco  none                            never

ari is one that others cannot do without.
`
	if got := show(); got != want || d.Passed() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
