package names

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func zone() Zone {
	a := netip.MustParseAddr
	z := Zone{
		"cats.example":   {a("198.51.100.11"), a("198.51.100.12"), a("2001:db8::11")},
		"*.cats.example": {a("203.0.113.21")},
		"old.example":    {a("192.0.2.1")},
	}
	for i := range 60 {
		z["many.example"] = append(z["many.example"], netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	return z
}

func serve(t *testing.T, zone func() Zone) string {
	t.Helper()
	s, err := listen(zone, 0, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.servers[0].Listener.Addr().String()
}

func TestAnswers(t *testing.T) {
	at := serve(t, zone)
	for _, c := range []struct {
		name   string
		typ    uint16
		rcode  int
		answer string
	}{
		{"cats.example.", dns.TypeA, dns.RcodeSuccess, "198.51.100.11 198.51.100.12"},
		{"CATS.example.", dns.TypeAAAA, dns.RcodeSuccess, "2001:db8::11"},
		{"www.cats.example.", dns.TypeA, dns.RcodeSuccess, "203.0.113.21"},
		{"a.b.cats.example.", dns.TypeA, dns.RcodeNameError, ""},
		{"old.example.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"old.example.", dns.TypeHTTPS, dns.RcodeSuccess, ""},
		{"example.", dns.TypeA, dns.RcodeSuccess, ""},
		{"dogs.example.", dns.TypeA, dns.RcodeNameError, ""},
		{".", dns.TypeNS, dns.RcodeSuccess, ""},
	} {
		m := new(dns.Msg)
		m.SetQuestion(c.name, c.typ)
		for _, network := range []string{"udp", "tcp"} {
			client := dns.Client{Net: network}
			got, _, err := client.Exchange(m, at)
			if err != nil {
				t.Fatal(err)
			}
			var addrs []string
			for _, rr := range got.Answer {
				if rr.Header().Name != c.name {
					t.Errorf("%s: answered for %s", c.name, rr.Header().Name)
				}
				addrs = append(addrs, rr.String()[strings.LastIndexByte(rr.String(), '\t')+1:])
			}
			slices.Sort(addrs) // which one comes first changes
			if got.Rcode != c.rcode || strings.Join(addrs, " ") != c.answer {
				t.Errorf("%s %s over %s: %s %v, want %s %q", c.name, dns.TypeToString[c.typ], network,
					dns.RcodeToString[got.Rcode], addrs, dns.RcodeToString[c.rcode], c.answer)
			}
			if (len(got.Answer) == 0) != (len(got.Ns) == 1) {
				t.Errorf("%s: %d answers with %d SOA records", c.name, len(got.Answer), len(got.Ns))
			}
		}
	}
}

// TestRefuses asks what is no question for an address.
func TestRefuses(t *testing.T) {
	s := &Server{zone: zone}
	question := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion("cats.example.", dns.TypeA)
		change(m)
		return m
	}
	for name, c := range map[string]struct {
		q    *dns.Msg
		want int
	}{
		"an update":    {question(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"no question":  {question(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"chaos class":  {question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"a real one":   {question(func(*dns.Msg) {}), dns.RcodeSuccess},
		"EDNS and all": {question(func(m *dns.Msg) { m.SetEdns0(4096, true) }), dns.RcodeSuccess},
	} {
		if got := s.answer(c.q); got.Rcode != c.want || !got.Response || got.Id != c.q.Id {
			t.Errorf("%s: %s, want %s", name, dns.RcodeToString[got.Rcode], dns.RcodeToString[c.want])
		}
	}
}

// TestTruncates gets over TCP what does not fit in a datagram.
func TestTruncates(t *testing.T) {
	at := serve(t, zone)
	m := new(dns.Msg)
	m.SetQuestion("many.example.", dns.TypeA)
	over := func(network string) *dns.Msg {
		t.Helper()
		client := dns.Client{Net: network}
		got, _, err := client.Exchange(m, at)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := over("udp"); !got.Truncated || len(got.Answer) > 30 {
		t.Errorf("over UDP: %d answers, truncated %v", len(got.Answer), got.Truncated)
	}
	if got := over("tcp"); got.Truncated || len(got.Answer) != 60 {
		t.Errorf("over TCP: %d answers, truncated %v", len(got.Answer), got.Truncated)
	}
}

// TestRotates sends those who take the first address to each in turn.
func TestRotates(t *testing.T) {
	s := &Server{zone: zone}
	first := map[string]bool{}
	for range 6 {
		m := new(dns.Msg)
		m.SetQuestion("cats.example.", dns.TypeA)
		first[s.answer(m).Answer[0].(*dns.A).A.String()] = true //nolint:forcetypeassert // an A record was asked for
	}
	if len(first) != 2 {
		t.Errorf("the first address is always one of %v", first)
	}
}
