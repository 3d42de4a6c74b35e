package mesh

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/relay"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// A handshake may lack an answer for greetAfter, beyond two round trips of a path
// that was just proven, before it is begun anew: either half of it may have gone
// where nobody was yet. It is, greetTries times, after twice as long each.
// WireGuard itself waits 5 s.
const (
	greetAfter = 50 * time.Millisecond
	greetTries = 5
	greetRest  = 5 * time.Second // after these: WireGuard goes on by itself
)

// restartGreet is how long a handshake with a peer that just restarted, or whose
// session is void, may lack an answer at first.
const restartGreet = 200 * time.Millisecond

// justNow is how old a handshake of a restarted peer may be, to be one that it
// began after its restart: it was silent before.
const justNow = 500 * time.Millisecond

// greeting is when to look after a session.
type greeting struct {
	at    time.Time
	after time.Duration
	tries int
}

func greetingIn(now time.Time, after time.Duration) greeting {
	return greeting{at: now.Add(after), after: after}
}

// drive gives the engine time and traffic until ctx is done.
func (a *Agent) drive(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	alive := time.NewTicker(orForever(a.opt.Watchdog))
	defer alive.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var watch clockWatch
	watch.look(a.clocks())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case done := <-a.reload:
			done <- a.reloadNow()
			continue
		case <-alive.C:
			a.opt.Notify("WATCHDOG=1")
			continue
		case <-second.C:
			slept, back := watch.look(a.clocks())
			if back > 0 {
				a.log.Info("clock was put back", fieldFor, back)
				a.anew()
			}
			if slept > 0 {
				a.log.Info("machine was asleep", fieldFor, slept)
				a.moved()
			}
			if slept == 0 && back == 0 {
				continue
			}
		case <-a.wake:
		case <-timer.C:
		}
		if a.changed.Swap(false) {
			if err := a.apply(); err != nil {
				a.log.Error("new node not added", fieldError, err)
			}
		}
		now := time.Now()
		next, looked := a.step(now)
		timer.Reset(next.Sub(now))
		a.turn(now, looked)
		a.serve(now)
		a.handshakes(now)
	}
}

// moved makes the engine prove all paths anew.
func (a *Agent) moved() {
	a.mu.Lock()
	a.engine.Moved(time.Now())
	a.mu.Unlock()
}

// anew takes a new epoch, as if this agent had started again: the others make
// their WireGuard peer anew, which remembers none of our handshakes.
func (a *Agent) anew() {
	now := time.Now()
	a.mu.Lock()
	a.engine.Anew(now)
	a.bind.SetEpoch(a.engine.Epoch())
	a.relay.SetOwnEpoch(a.engine.Epoch())
	a.carryOutLocked(now)
	a.mu.Unlock()
}

func orForever(d time.Duration) time.Duration {
	if d <= 0 {
		return 365 * 24 * time.Hour
	}
	return d
}

func (a *Agent) reloadNow() error {
	port, was := a.conf.Port, a.key
	err := a.load()
	if err == nil {
		err = a.apply()
	}
	if a.key != was {
		a.rekeyAt = time.Now().Add(rekeyAfter)
	}
	if err != nil {
		a.log.Error("configuration not taken over", fieldError, err)
		return err
	}
	if a.conf.Port != port {
		a.log.Warn("another port needs a restart", fieldPort, a.conf.Port)
	}
	a.log.Info("configuration reloaded", fieldPeers, len(a.nodes))
	return nil
}

// step advances the engine, and returns when to do so next, and whom there was
// something to look at with.
func (a *Agent) step(now time.Time) (next time.Time, look map[wire.ID]bool) {
	a.lookMu.Lock()
	look = a.look
	a.look = make(map[wire.ID]bool)
	a.lookMu.Unlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range look {
		a.engine.Traffic(now, id, a.trafficLocked(now, id))
		a.attendLocked(now, id)
	}
	next = a.engine.Advance(now)
	a.carryOutLocked(now)
	for _, g := range a.greet {
		if g.at.Before(next) {
			next = g.at
		}
	}
	if at := a.nextTurnLocked(); !at.IsZero() && at.Before(next) {
		next = at
	}
	return next, look
}

// trafficLocked is what the engine is told of the traffic with a peer.
func (a *Agent) trafficLocked(now time.Time, id wire.ID) path.Traffic {
	l := a.seen[id]
	if l == nil {
		l = &looked{}
		a.seen[id] = l
	}
	return l.tell(now, a.bind.Counters(id))
}

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Look implements link.Control. It must not wait for the engine: it is called
// on the way of packets.
func (a *Agent) Look(id wire.ID) {
	a.lookMu.Lock()
	a.look[id] = true
	a.lookMu.Unlock()
	a.poke()
}

// Frame implements link.Control.
func (a *Agent) Frame(b []byte, from path.Source) {
	now := time.Now()
	switch wire.Classify(b) {
	case wire.Ping, wire.Pong, wire.Call, wire.Notice:
	case wire.JoinRequest:
		a.join(now, b, from)
		return
	default:
		return
	}
	a.mu.Lock()
	ring := a.ring
	a.mu.Unlock()
	m, err := ring.Open(b)
	a.mu.Lock()
	if err != nil {
		a.calledLocked(now, b, from) // strangers get silence
		a.mu.Unlock()
		return
	}
	a.engine.Receive(now, from, m)
	id, _ := wire.SenderOf(m)
	a.heardLocked(now, id)
	a.carryOutLocked(now)
	a.mu.Unlock()
	a.poke()
}

// Relay implements link.Control.
func (a *Agent) Relay(v relay.Verdict, f wire.Frame, from path.Source) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if v == relay.Unknown {
		a.engine.Meet(now, f.From, from)
	} else {
		a.engine.Refuse(now, f.From, f.To)
	}
	a.carryOutLocked(now)
}

// carryOutLocked does what the engine decided. What cannot be sent is the same
// to the engine as what is lost.
func (a *Agent) carryOutLocked(now time.Time) {
	for d := range a.engine.Decisions() {
		switch d := d.(type) {
		case path.Send:
			if frame := a.sealLocked(d); frame != nil {
				a.sendLocked(now, d, frame)
			}
		case path.Use:
			a.bind.Use(d, now)
			a.logUseLocked(d)
		case path.Line:
			a.bind.Line(d)
		case path.Egress:
			a.relay.SetHop(d.Peer, relay.Hop{Addr: d.Addr, Local: d.Local})
			if other := twin(a.nodes[d.Peer]); !other.IsZero() {
				a.relay.SetHop(other, relay.Hop{Addr: d.Addr, Local: d.Local})
			}
		case path.Epoch:
			a.relay.SetEpoch(d.Peer, d.Epoch)
		case path.Proven:
			after := 2*d.RTT + greetAfter
			a.greet[d.Peer] = greetingIn(now, after)
		case path.Quiet:
			a.bind.Quiet(d.Peer)
		case path.Serving:
			a.serving = append(a.serving, d)
		case path.Restarted:
			a.restarts = append(a.restarts, d.Peer)
		}
	}
}

func (a *Agent) sendLocked(now time.Time, d path.Send, frame []byte) {
	err := a.bind.SendFrame(d.Peer, d.Route, d.Local, frame)
	if err != nil && link.Refused(err) && d.Route.Direct() {
		a.engine.Failed(now, d.Peer, d.Route)
	}
}

func (a *Agent) sealLocked(d path.Send) []byte {
	pair, ok := a.ring.Pair(d.Peer)
	if !ok {
		return nil
	}
	switch m := d.Message.(type) {
	case wire.Probe:
		return pair.SealProbe(make([]byte, 0, max(int(m.Size), wire.ProbeSize)), m)
	case wire.Note:
		return pair.SealNote(nil, m)
	case wire.CallMe:
		frame, err := pair.SealCall(nil, m, rand.Reader)
		if err != nil {
			return nil
		}
		return frame
	}
	return nil
}

// logUseLocked writes one line for each change of path.
func (a *Agent) logUseLocked(u path.Use) {
	if a.logged[u.Peer] == u.Route || a.silentLocked(u.Peer) {
		return
	}
	a.logged[u.Peer] = u.Route
	attrs := []any{fieldPeer, a.nodes[u.Peer].Name, fieldPath, u.Route.Kind(), fieldWhy, u.Why}
	if via, relayed := a.nodes[u.Route.Hub]; relayed {
		attrs = append(attrs, fieldVia, via.Name)
	}
	a.log.Info("path", attrs...)
}

// attendLocked looks after the session with a peer, if it needs that and the peer
// is known to be there. The others are until their path is proven.
func (a *Agent) attendLocked(now time.Time, id wire.ID) {
	if _, ok := a.greet[id]; ok || a.bind.Handshake(id, now) == link.Settled {
		return
	}
	if rtt, ok := a.engine.RTT(now, id); ok {
		a.greet[id] = greetingIn(now, 2*rtt+greetAfter)
	}
}

// handshakes gives peers whose agent restarted a new session, and those whose
// handshake went unanswered although the path works, or whose session is void.
// Not under mu: the device waits for packets on their way, which may wait for mu.
func (a *Agent) handshakes(now time.Time) {
	a.mu.Lock()
	restarted, nodes := a.restarts, a.nodes
	a.restarts = nil
	due := a.dueLocked(now)
	a.mu.Unlock()
	for _, id := range restarted {
		if n, ok := nodes[id]; ok && !a.bind.Met(id, now, justNow) { // else it was faster: that session is a new one
			a.renew(now, id, n)
		}
	}
	for id, need := range due {
		n, ok := nodes[id]
		if !ok {
			continue
		}
		if need == link.Void {
			a.log.Info("session is void", fieldPeer, n.Name)
			a.bind.Voided(id, now)
		}
		if err := a.dev.Greet(n.Key); err != nil {
			a.log.Warn("no handshake", fieldPeer, n.Name, fieldError, err)
		}
	}
}

// dueLocked returns whose handshake is to be begun now, and why.
func (a *Agent) dueLocked(now time.Time) map[wire.ID]link.Handshake {
	due := make(map[wire.ID]link.Handshake)
	for id, g := range a.greet {
		if now.Before(g.at) {
			continue
		}
		need := a.bind.Handshake(id, now)
		switch {
		case need == link.Settled:
			delete(a.greet, id)
			continue
		case need == link.Yielding:
			g.at = now.Add(greetAfter)
		case g.tries == greetTries:
			g.at = now.Add(greetRest) // it goes on by itself
		default:
			due[id] = need
			g.tries++
			if need == link.Void {
				g.after = restartGreet
			} else {
				g.after *= 2
			}
			g.at = now.Add(g.after)
		}
		a.greet[id] = g
	}
	return due
}

// renew begins a session with a peer that restarted.
func (a *Agent) renew(now time.Time, id wire.ID, n fleet.MeshNode) {
	c := a.bind.Counters(id)
	a.bind.Expire(id)
	used := now.Sub(c.Tx) < link.SessionFor || now.Sub(c.Rx) < link.SessionFor || now.Sub(c.OtherRx) < link.SessionFor
	if err := a.dev.Restart(n.Key, used); err != nil {
		a.log.Warn("no new session", fieldPeer, n.Name, fieldError, err)
	}
	a.log.Info("peer restarted", fieldPeer, n.Name)
	if used {
		a.mu.Lock()
		a.greet[id] = greetingIn(now, restartGreet)
		a.mu.Unlock()
		a.poke()
	}
}
