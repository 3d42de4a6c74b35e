package plan

import (
	"fmt"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Rotation is how far the change of a node's mesh key is.
//
//	lock             nodes                       what is next
//	key A            know A                      Fresh: the node makes B
//	key A, next B    some know B                 Teach: everybody learns B
//	key A, next B    all know A and B            Name:  the lock has B, old A
//	key B, old A     the node goes by A          Switch: the node alone gets that
//	key B, old A     the node goes by B          Drop:  the lock has B, gone A
//	key B, gone A    some know A                 Forget: everybody forgets A
//	key B, gone A    all know B                  Done:  the lock has B
//
// In each of these the node is known by the key that it goes by, whatever of it is
// cut short: going on is doing what is next, and a plain apply is never wrong.
type Rotation uint8

// The states of a rotation.
const (
	Fresh Rotation = iota
	Teach
	Name
	Switch
	Drop
	Forget
	Done
)

// NextOfRotation says what is next for a node. speaks is the key that it goes by,
// as its agent says, zero where it says nothing; told says that an apply to all
// would change nothing, and leave nobody out.
func NextOfRotation(l fleet.NodeLock, speaks fleet.Key, told bool) Rotation {
	switch {
	case !l.NextKey.IsZero() && !told:
		return Teach
	case !l.NextKey.IsZero():
		return Name
	case !l.GoneKey.IsZero() && !told:
		return Forget
	case !l.GoneKey.IsZero():
		return Done
	case l.OldKey.IsZero():
		return Fresh
	case speaks != l.MeshKey:
		return Switch
	}
	return Drop
}

// Named is the lock's entry once the node goes by its next key.
func Named(l fleet.NodeLock) fleet.NodeLock {
	l.MeshKey, l.NextKey, l.OldKey = l.NextKey, fleet.Key{}, l.MeshKey
	return l
}

// Unnamed is the entry before that. Going on from there is right whoever knows
// what.
func Unnamed(l fleet.NodeLock) fleet.NodeLock {
	l.MeshKey, l.NextKey, l.OldKey = l.OldKey, l.MeshKey, fleet.Key{}
	return l
}

// Dropped is the entry once the old key is good no more.
func Dropped(l fleet.NodeLock) fleet.NodeLock {
	l.OldKey, l.GoneKey = fleet.Key{}, l.OldKey
	return l
}

// Forgotten is the lock after an apply that left nobody out: keys that are gone
// are gone everywhere. It says whether there were any.
func Forgotten(l *fleet.Lock) bool {
	any := false
	for i := range l.Nodes {
		any = any || !l.Nodes[i].GoneKey.IsZero()
		l.Nodes[i].GoneKey = fleet.Key{}
	}
	return any
}

// Rotating is a node whose mesh key is being changed.
type Rotating struct {
	Node fleet.NodeName `json:"node"`
	Next string         `json:"next"` // the command that goes on
}

// RotationsIn are the rotations under way.
func RotationsIn(f *fleet.Fleet, l *fleet.Lock) []Rotating {
	var out []Rotating
	for _, n := range l.Nodes {
		if !n.Rotating() {
			continue // before it is looked for: there are many nodes, and few of these
		}
		if _, listed := f.Node(n.Name); listed {
			out = append(out, Rotating{n.Name, fmt.Sprintf("moggy rotate %s", n.Name)})
		}
	}
	return out
}
