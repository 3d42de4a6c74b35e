package mesh

import (
	"errors"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/link"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// A node's key is rotated while it goes on talking:
//
//	mesh.json says        the node                         the others
//	key A                 is A
//	key A, next B         is A; hears what is for B        know A and B, talk to A
//	key B, old A          becomes B; hears what is for A   talk to B when they hear it
//	key B                 is B                             know B
//
// Becoming B is two steps. At once everything that is about paths is B's: who
// relies on this node or is talked to is probed, and who still calls A is answered
// as B. rekeyAfter later, when the others know a way to B, WireGuard's key is B's.
// Until they have shaken hands the others' data still comes by A's sessions, and
// ours waits, for a round trip.

// rekeyAfter is how long others have to find B: a probe, its echo, and the proof of
// the epoch, once again if one is lost.
const rekeyAfter = 300 * time.Millisecond

// heedAfter is how long a node that was heard under its silent key has to shake
// hands by itself before we do.
const heedAfter = 2 * rekeyAfter

// turnAfter is how long data that was received before a node's first handshake with
// its new key has to be opened: it loses its addresses then. WireGuard opens data and
// answers handshakes on several cores, and a busy machine is late with either.
const turnAfter = 20 * time.Millisecond

var errOneKey = errors.New("not one WireGuard private key")

// Take takes a private key of this node, which mesh.json will name next. It is
// forgotten when the agent ends: the file has it too.
func (a *Agent) Take(text []byte) error {
	keys, err := wire.ParsePrivateKeys(text)
	if err != nil || len(keys) != 1 {
		return errOneKey // the cause is not to be repeated
	}
	a.mu.Lock()
	a.given = keys
	a.mu.Unlock()
	return nil
}

// becomeNow makes WireGuard's key the one that we go by.
func (a *Agent) becomeNow(now time.Time) {
	a.rekeyAt = time.Time{}
	a.bind.Rekey()
	if err := a.dev.SetKey(a.key); err != nil {
		a.log.Error("key not changed", fieldError, err)
		return
	}
	a.log.Info("own key changed", fieldKey, a.key.Public())
	a.mu.Lock()
	nodes := a.nodes
	a.mu.Unlock()
	for id, n := range nodes {
		c := a.bind.Counters(id)
		if last := latest(c.Tx, c.Rx, c.OtherRx); now.Sub(last) >= link.SessionFor {
			continue
		}
		if err := a.dev.Begin(n.Key); err != nil {
			a.log.Warn("no handshake", fieldPeer, n.Name, fieldError, err)
		}
		a.mu.Lock()
		a.greet[id] = greetingIn(now, restartGreet)
		a.mu.Unlock()
	}
	a.poke()
}

func latest(times ...time.Time) time.Time {
	var last time.Time
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// silentLocked says whether id is the one of a node's two keys that it does not
// use.
func (a *Agent) silentLocked(id wire.ID) bool {
	n, ok := a.nodes[id]
	return ok && a.speaks[n.Name] != id
}

// heardLocked is told of every authentic frame. One of a silent peer may mean that
// the node uses that key now: if it has not shaken hands with us, we do.
func (a *Agent) heardLocked(now time.Time, id wire.ID) {
	if _, ok := a.heed[id]; ok || !a.silentLocked(id) {
		return
	}
	c := a.bind.Counters(a.speaks[a.nodes[id].Name])
	if now.Sub(latest(c.Rx, c.OtherRx)) < link.SessionFor {
		a.heed[id] = now.Add(heedAfter)
	} else {
		a.heed[id] = now // it has no session with us to renew
	}
}

// calledLocked answers a frame for the identity that is not ours now as the one
// that we are: so the sender learns of it.
func (a *Agent) calledLocked(now time.Time, b []byte, from path.Source) {
	if a.former == nil {
		return
	}
	if m, err := a.former.Open(b); err == nil {
		id, _ := wire.SenderOf(m)
		a.engine.Meet(now, id, from)
		a.carryOutLocked(now)
	}
}

// nextTurnLocked is when turn has something to do; zero for never.
func (a *Agent) nextTurnLocked() time.Time {
	next := a.rekeyAt
	for _, times := range []map[wire.ID]time.Time{a.heed, a.turns} {
		for _, at := range times {
			if next.IsZero() || at.Before(next) {
				next = at
			}
		}
	}
	return next
}

// turn looks after nodes that have two keys.
func (a *Agent) turn(now time.Time, looked map[wire.ID]bool) {
	if !a.rekeyAt.IsZero() && !now.Before(a.rekeyAt) {
		a.becomeNow(now)
	}
	var due []fleet.MeshNode
	var turn []wire.ID
	a.mu.Lock()
	for id := range looked {
		if _, ok := a.turns[id]; !ok && a.bind.Spoke(id) {
			a.turns[id] = now.Add(turnAfter)
			a.poke()
		}
	}
	for id, at := range a.turns {
		if !now.Before(at) {
			turn = append(turn, id)
			delete(a.turns, id)
		}
	}
	for id, at := range a.heed {
		if now.Before(at) {
			continue
		}
		delete(a.heed, id)
		if n := a.nodes[id]; a.silentLocked(id) && a.engine.IsAwake(a.speaks[n.Name]) {
			due = append(due, n)
		}
	}
	a.mu.Unlock()
	for _, id := range turn {
		a.turnTo(now, id)
	}
	for _, n := range due {
		if err := a.dev.Greet(n.Key); err != nil {
			a.log.Warn("no handshake", fieldPeer, n.Name, fieldError, err)
		}
	}
}

// turnTo makes the silent peer id the one that its node is.
func (a *Agent) turnTo(now time.Time, id wire.ID) {
	a.mu.Lock()
	n, ok := a.nodes[id]
	a.mu.Unlock()
	if !ok {
		return
	}
	if !a.bind.Spoke(id) {
		return // the file says otherwise since
	}
	if err := a.dev.Give(n.Key, n.Next); err != nil {
		a.log.Warn("addresses not moved", fieldPeer, n.Name, fieldError, err)
		return
	}
	a.mu.Lock()
	a.speaks[n.Name] = id
	a.mu.Unlock()
	a.bind.Speak(id, twin(n), now)
	a.log.Info("peer changed its key", fieldPeer, n.Name, fieldKey, n.Key)
}
