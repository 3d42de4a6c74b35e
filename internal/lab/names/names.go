// Package names is the name server of a lab's internet: it answers for every
// name that leads somewhere there, and says of all others that they do not
// exist. What it answers is looked up anew for every question; it asks nobody.
package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Zone is what the names of an internet lead to. Names are in lower case,
// without the final dot; "*.cats.example" stands for every name one label below
// cats.example that is not there itself.
type Zone map[string][]netip.Addr

// ttl is how long an answer may be kept, in seconds: short, since in a lab
// names come and go within minutes.
const ttl = 10

// Server answers on its addresses.
type Server struct {
	zone    func() Zone
	servers []*dns.Server
	turn    atomic.Uint32 // which address comes first
}

// Listen opens UDP and TCP port 53 on each of the addresses, and answers
// nothing yet.
func Listen(zone func() Zone, addrs ...netip.Addr) (*Server, error) {
	return listen(zone, 53, addrs...)
}

func listen(zone func() Zone, port uint16, addrs ...netip.Addr) (*Server, error) {
	s := &Server{zone: zone}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, port)
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			s.close()
			return nil, err
		}
		s.servers = append(s.servers, &dns.Server{Listener: l, Handler: s})
		at = netip.AddrPortFrom(a, l.Addr().(*net.TCPAddr).AddrPort().Port()) //nolint:forcetypeassert // it is a TCP listener
		p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			s.close()
			return nil, err
		}
		s.servers = append(s.servers, &dns.Server{PacketConn: p, Handler: s})
	}
	return s, nil
}

func (s *Server) close() {
	for _, d := range s.servers {
		if d.Listener != nil {
			d.Listener.Close()
		}
		if d.PacketConn != nil {
			d.PacketConn.Close()
		}
	}
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range s.servers {
		g.Go(d.ActivateAndServe)
	}
	defer context.AfterFunc(ctx, s.close)()
	if err := g.Wait(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// ServeDNS answers one question (RFC 1035, 2308, 8482).
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := s.answer(q)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // whoever asked has gone, or asks again
}

func (s *Server) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if q.Opcode != dns.OpcodeQuery {
		return m.SetRcode(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	m.SetReply(q)
	m.RecursionAvailable = true
	if q.IsEdns0() != nil {
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	asked := q.Question[0]
	if asked.Qclass != dns.ClassINET {
		return m.SetRcode(q, dns.RcodeRefused)
	}
	addrs, exists := s.zone().find(strings.ToLower(strings.TrimSuffix(asked.Name, ".")))
	for _, a := range s.rotate(addrs) {
		h := dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
		switch {
		case a.Is4() && asked.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case a.Is6() && asked.Qtype == dns.TypeAAAA:
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa()}
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	return m
}

// rotate begins with another address each time, as name servers do to spread
// those who take the first.
func (s *Server) rotate(addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	n := int(s.turn.Add(1)) % len(addrs)
	return append(append([]netip.Addr{}, addrs[n:]...), addrs[:n]...)
}

// find returns a name's addresses, and whether there is such a name: also one
// that only has others below it is there (RFC 8020).
func (z Zone) find(name string) ([]netip.Addr, bool) {
	if addrs, ok := z[name]; ok {
		return addrs, true
	}
	if _, above, ok := strings.Cut(name, "."); ok {
		if addrs, ok := z["*."+above]; ok {
			return addrs, true
		}
	}
	for n := range z {
		if strings.HasSuffix(n, "."+name) || name == "" {
			return nil, true
		}
	}
	return nil, false
}

// soa says how long it may be remembered that there is nothing.
func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.lab.", Mbox: "hostmaster.lab.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}
