package topology_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/lab/topology"
)

func TestSlowness(t *testing.T) {
	net, err := topology.Build(cats())
	if err != nil {
		t.Fatal(err)
	}
	slow, err := net.Slowness([]topology.Delay{
		{Of: topology.Party{Site: "london"}, For: time.Second, Queue: 1},
		{Of: topology.Party{Node: "ari"}, For: 2 * time.Second, Queue: 2},
		{Of: topology.Party{Node: "bianco"}, For: 3 * time.Second, Queue: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	const queue = " -j NFQUEUE --queue-bypass --queue-num "
	tables := func(raw, mangle string) string {
		return "*raw\n:PREROUTING ACCEPT [0:0]\n" + raw + "COMMIT\n*mangle\n:FORWARD ACCEPT [0:0]\n" + mangle + "COMMIT\n"
	}
	const leaving, arriving, stays = "-A PREROUTING -i lan", "-A FORWARD -i wan", " -j RETURN\n"
	none := map[uint16]time.Duration{}
	want := map[string]topology.Slowness{
		"site-dusseldorf": {V4: tables("", ""), V6: tables("", ""), Queues: none},
		"site-nuremberg":  {V4: tables("", ""), V6: tables("", ""), Queues: none},
		"site-london": {
			V4: tables(leaving+" -d 192.168.1.11"+stays+leaving+" -d 192.168.1.12"+stays+
				leaving+" -s 192.168.1.11"+queue+"2\n"+leaving+queue+"1\n",
				arriving+" -d 192.168.1.11"+queue+"2\n"+arriving+queue+"1\n"),
			V6: tables(leaving+" -d 2001:db8:f002::11"+stays+leaving+" -d 2001:db8:f002::12"+stays+
				leaving+" -s 2001:db8:f002::11"+queue+"2\n"+leaving+queue+"1\n",
				arriving+" -d 2001:db8:f002::11"+queue+"2\n"+arriving+queue+"1\n"),
			Queues: map[uint16]time.Duration{1: time.Second, 2: 2 * time.Second},
		},
		"site-madrid": {
			V4:     tables(leaving+" -d 192.168.1.11"+stays+leaving+" -s 192.168.1.11"+queue+"3\n", arriving+" -d 192.168.1.11"+queue+"3\n"),
			V6:     tables("", ""),
			Queues: map[uint16]time.Duration{3: 3 * time.Second},
		},
	}
	if diff := cmp.Diff(want, slow); diff != "" {
		t.Errorf("slowness (-want +got):\n%s", diff)
	}
	if _, err := net.Slowness([]topology.Delay{{Of: topology.Party{Operator: true}}}); err == nil {
		t.Error("the operator, behind no router, can be slow")
	}
}
