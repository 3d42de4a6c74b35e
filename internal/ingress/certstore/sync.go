package certstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const (
	// syncEvery is how often nodes compare what they have, which is one hash when
	// nothing differs.
	syncEvery = 5 * time.Second
	// answerMost bounds the values in one message, in bytes; the rest comes the next
	// time.
	answerMost = 1 << 20
)

// Peer is another ingress node.
type Peer struct {
	Name    fleet.NodeName
	Address netip.AddrPort // TCP, on the mesh
	Secrets []Secret       // shared with it; the first is used, any is good
}

// peer is one as we know it.
type peer struct {
	Peer
	heard   time.Time // had the same last
	problem string
	quiet   time.Time // not asked before: it was not there just now
}

// SetPeers says who the others are.
func (s *Store) SetPeers(peers []Peer) {
	s.mu.Lock()
	old := s.peers
	s.peers = nil
	for _, p := range peers {
		next := &peer{Peer: p}
		for _, o := range old {
			if o.Name == p.Name {
				next.heard, next.problem = o.heard, o.problem
			}
		}
		s.peers = append(s.peers, next)
	}
	slices.SortFunc(s.peers, func(a, b *peer) int { return strings.Compare(string(a.Name), string(b.Name)) })
	s.mu.Unlock()
	s.Wake()
}

// Wake has Run compare at once.
func (s *Store) Wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Peers says how the others are.
func (s *Store) Peers() (out []fleet.IngressPeer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		out = append(out, fleet.IngressPeer{Name: p.Name, Heard: p.heard, Problem: p.problem})
	}
	return out
}

// members are all nodes in the order in which locks are asked for; nil is this one.
func (s *Store) members() (out []*peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	placed := false
	for _, p := range s.peers {
		if !placed && s.self < p.Name {
			out, placed = append(out, nil), true
		}
		out = append(out, p)
	}
	if !placed {
		out = append(out, nil)
	}
	return out
}

// Run compares with the others until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		s.Sync(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.poke:
		}
	}
}

// Sync compares with all others at once, and returns when each answered or did not
// in time.
func (s *Store) Sync(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range s.members() {
		if p != nil {
			all.Go(func() { s.compare(ctx, p) })
		}
	}
	all.Wait()
}

// spread brings entries to all peers that can be reached.
func (s *Store) spread(ctx context.Context, entries []entry) {
	var all sync.WaitGroup
	for _, p := range s.members() {
		if p != nil {
			all.Go(func() {
				_, _ = s.call(ctx, p, message{Op: opPut, Entries: entries}) // it gets them when it is back
			})
		}
	}
	all.Wait()
}

// compare makes p and us have the same, in rounds where there is much.
func (s *Store) compare(ctx context.Context, p *peer) {
	for range 64 {
		stamps := s.stamps()
		answer, err := s.call(ctx, p, message{Op: opCompare, Sum: sum(stamps)})
		if err == nil && !answer.Same {
			answer, err = s.call(ctx, p, message{Op: opCompare, Stamps: stamps})
		}
		if err == nil {
			err = s.take(answer.Entries...)
		}
		if err == nil && len(answer.Wanted) > 0 {
			_, err = s.call(ctx, p, message{Op: opPut, Entries: s.some(answer.Wanted)})
		}
		s.mu.Lock()
		if err == nil && answer.Same {
			p.heard = time.Now()
		}
		if p.problem = ""; err != nil {
			p.problem = err.Error()
		}
		s.mu.Unlock()
		if err != nil || answer.Same {
			return
		}
	}
}

// mark names a write to a key.
type mark struct {
	At int64          `json:"at"`
	By fleet.NodeName `json:"by"`
}

func (s *Store) stamps() map[string]mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]mark, len(s.entries))
	for k, e := range s.entries {
		out[k] = mark{e.At, e.By}
	}
	return out
}

// sum is one number for all that a node has.
func sum(stamps map[string]mark) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(stamps)) {
		fmt.Fprintf(h, "%q %d %q\n", k, stamps[k].At, stamps[k].By)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// some are the entries of those keys, as many as one message takes.
func (s *Store) some(keys []string) (out []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for _, k := range keys {
		e, ok := s.entries[k]
		if !ok {
			continue
		}
		if size += len(k) + len(e.Value); size > answerMost && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out
}

// differ says which of ours are later than theirs, and which of theirs than ours.
func (s *Store) differ(theirs map[string]mark) (ours, wanted []string) {
	mine := s.stamps()
	for k, m := range mine {
		t, ok := theirs[k]
		if !ok || (entry{At: m.At, By: m.By}).after(entry{At: t.At, By: t.By}) {
			ours = append(ours, k)
		}
	}
	for k, t := range theirs {
		m, ok := mine[k]
		if !ok || (entry{At: t.At, By: t.By}).after(entry{At: m.At, By: m.By}) {
			wanted = append(wanted, k)
		}
	}
	slices.Sort(ours)
	slices.Sort(wanted)
	return ours, wanted
}
