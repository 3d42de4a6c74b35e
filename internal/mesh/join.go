package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
	"github.com/moggyfleet/moggy/internal/token"
)

// Errors of Join, to branch on.
var (
	ErrUsed     = errors.New("another machine has used this token")
	ErrExpired  = errors.New("this token has expired")
	ErrTaken    = errors.New("this machine is another node of the fleet already")
	ErrNoAnswer = errors.New("no hub answered")
)

// Times of a join.
const (
	joinRetry    = 400 * time.Millisecond // at first; it grows by half each round
	joinPatience = 10 * time.Second
	// joinOthers is how long the other hubs are waited for once one answered:
	// each must be told, because hubs do not tell each other, and one that agrees
	// outweighs one whose clock is ahead.
	joinOthers = 2 * time.Second
)

// Told is what came of asking one hub.
type Told struct {
	Hub    fleet.NodeName
	Status wire.JoinStatus // 0: no answer
	Clock  time.Time       // the hub's, when it answered
}

// Join takes a token up: it tells every hub this machine's key and SSH host
// key. It succeeds when one hub agrees, and returns what each said. It gives up
// after 10 s, or when ctx is done.
func Join(ctx context.Context, t token.Token, key fleet.Key, hostKey [wire.HostKeySize]byte) ([]Told, error) {
	return askHubs(ctx, t, wire.Join{Key: key, HostKey: hostKey})
}

// Knock asks what Join would be answered, and changes nothing anywhere. The
// first hub that agrees ends it.
func Knock(ctx context.Context, t token.Token, key fleet.Key) ([]Told, error) {
	return askHubs(ctx, t, wire.Join{Key: key})
}

func askHubs(ctx context.Context, t token.Token, request wire.Join) ([]Told, error) {
	j, err := newJoiner(t, request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	var wg sync.WaitGroup
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenUDP(network, nil)
		if err != nil {
			continue // the other family may do
		}
		j.conns = append(j.conns, c)
		wg.Go(func() { j.receive(c) })
	}
	j.ask(ctx)
	for _, c := range j.conns {
		c.Close()
	}
	wg.Wait()
	return j.result(t)
}

type joiner struct {
	knock bool
	hubs  []*asked
	conns []*net.UDPConn
	news  chan struct{}

	mu sync.Mutex // of what each hub answered
}

type asked struct {
	node    fleet.MeshNode
	keys    *wire.JoinKeys
	request []byte
	told    Told
}

func newJoiner(t token.Token, join wire.Join) (*joiner, error) {
	j := &joiner{knock: join.Knock(), news: make(chan struct{}, 1)}
	for _, h := range t.Hubs {
		keys, err := wire.TokenKeys(wire.PrivateKey(t.Secret), h.Key)
		if err != nil {
			return nil, fmt.Errorf("hub %s: %w", h.Name, err)
		}
		// Sealed once: an answer to any copy is an answer.
		request, err := keys.SealRequest(join, rand.Reader)
		if err != nil {
			return nil, err
		}
		j.hubs = append(j.hubs, &asked{node: h, keys: keys, request: request, told: Told{Hub: h.Name}})
	}
	return j, nil
}

// ask sends until every hub has answered, or one did and the others had their
// time; a knock until one agrees.
func (j *joiner) ask(ctx context.Context) {
	retry := joinRetry
	next := time.NewTimer(0)
	defer next.Stop()
	var others <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-others:
			return
		case <-next.C:
			j.send()
			next.Reset(retry)
			retry += retry / 2
		case <-j.news:
			agreed, all := j.progress()
			if all || agreed && j.knock {
				return
			}
			if others == nil {
				others = time.After(joinOthers)
			}
		}
	}
}

func (j *joiner) progress() (agreed, all bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	all = true
	for _, h := range j.hubs {
		agreed = agreed || h.told.Status == wire.JoinOK
		all = all && h.told.Status != 0
	}
	return agreed, all
}

// send asks those that have not answered, at all their addresses.
func (j *joiner) send() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, h := range j.hubs {
		if h.told.Status != 0 {
			continue
		}
		for _, to := range h.node.Public {
			for _, c := range j.conns {
				if isV4(c) == to.Addr().Is4() {
					_, _ = c.WriteToUDPAddrPort(h.request, to) // no route is the same as no answer
				}
			}
		}
	}
}

func isV4(c *net.UDPConn) bool {
	a, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && (a.IP.To4() != nil)
}

func (j *joiner) receive(c *net.UDPConn) {
	b := make([]byte, 2*wire.JoinReplySize)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			j.heard(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}
}

func (j *joiner) heard(b []byte, from netip.AddrPort) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, h := range j.hubs {
		if !slices.Contains(h.node.Public, from) {
			continue
		}
		answer, err := h.keys.OpenReply(b, h.request)
		if err != nil {
			continue
		}
		h.told.Status, h.told.Clock = answer.Status, time.Unix(answer.At, 0)
		select {
		case j.news <- struct{}{}:
		default:
		}
	}
}

// result weighs the answers. One that agrees is enough: the others may have a
// clock that is ahead, or have been told of the token too late.
func (j *joiner) result(t token.Token) ([]Told, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	said := make(map[wire.JoinStatus]*asked)
	told := make([]Told, 0, len(j.hubs))
	for _, h := range j.hubs {
		told = append(told, h.told)
		if said[h.told.Status] == nil {
			said[h.told.Status] = h
		}
	}
	by := func(s wire.JoinStatus) fleet.NodeName { return said[s].node.Name }
	switch {
	case said[wire.JoinUsed] != nil:
		return told, hint.Wrap(fmt.Errorf("node %s: %w, says %s", t.Node, ErrUsed, by(wire.JoinUsed)),
			"if that was not you, take the place back with a new one: moggy token %s --replace", t.Node)
	case said[wire.JoinOK] != nil:
		return told, nil
	case said[wire.JoinTaken] != nil:
		return told, hint.Wrap(fmt.Errorf("node %s: %w, says %s", t.Node, ErrTaken, by(wire.JoinTaken)),
			"this machine has a mesh key from another join; `moggy status` at the operator's shows which node it is")
	case said[wire.JoinExpired] != nil:
		h := said[wire.JoinExpired]
		return told, hint.Wrap(fmt.Errorf("node %s: %w, at %s by the clock of %s, which shows %s", t.Node, ErrExpired,
			clock(time.Unix(t.Expires, 0)), h.node.Name, clock(h.told.Clock)),
			"make a new one at the operator's: moggy token %s", t.Node)
	}
	return told, hint.Wrap(fmt.Errorf("%w; tried %s", ErrNoAnswer, j.tried()),
		"a firewall on the way may block UDP to port %d; and hubs are silent about tokens they do not know: those of another fleet, "+
			"or of a node that has left the file. A new one: moggy token %s", t.Port, t.Node)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

func (j *joiner) tried() string {
	var out []string
	for _, h := range j.hubs {
		for _, a := range h.node.Public {
			out = append(out, fmt.Sprintf("%s %s", h.node.Name, a))
		}
	}
	return strings.Join(out, ", ")
}
