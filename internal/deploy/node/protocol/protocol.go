// Package protocol is what the operator's moggy and `moggy node` on a machine
// say to each other over ssh: the documents, the stream that brings a
// generation's files, and what a manifest may ask for. It is an interface
// between releases, pure, and carries nothing itself.
//
// # Commands
//
// The operator runs, as root:
//
//	moggy node init              make what must exist; answers Init
//	moggy node observe           answers fleet.Observed
//	moggy node missing           manifest on stdin; answers Missing
//	moggy node stage             stream on stdin (below); answers Staged
//	moggy node packages NAME...  answers Packages
//	moggy node pull IMAGE        answers Done
//	moggy node activate N        answers lines of Event, the last with End set;
//	                             --confirm-within D: the node goes back unless
//	                             it is confirmed within D of that End
//	moggy node wait N            the same, of an activation that runs or ran
//	moggy node confirm N         answers Standing
//	moggy node back              answers lines of Event, as activate does
//	moggy node invite            fleet.Invitation on stdin; answers Done
//	moggy node hold              keeps other operators out while its stdin gives
//	                             a line every few seconds; answers Done once it has;
//	                             --session S: another hold of S makes way for it
//	moggy node history           answers History
//	moggy node next-key          makes the mesh key that the node shall have next;
//	                             --current K --wanted K; answers NextKey
//	moggy node examine           answers fleet.Examination
//
// The machine runs `moggy node guard` when it starts. `moggy node steps` lists
// an activation's steps, for drills: it can be held at each (package node).
//
// Answers are JSON on stdout. What went wrong is on stderr, as everywhere in
// moggy, and the exit code says of what kind it was (ExitLocked and its
// neighbours).
//
// # Versions
//
// Every answer and every document names the protocol it speaks. Within a
// number names are only added, and names that are not known are passed over;
// what must be understood to be safe raises the number. The operator's side
// says `--protocol` with its commands, the node's side says "protocol" in its
// answers; both speak the lower one of what they know, and each refuses what is
// outside [Oldest, Version]. An operator's moggy that is newer than the node's
// brings itself along and has it answer.
//
//	1  the first
//	2  activate --confirm-within, --commit; hold, history, examine
//
// # The stream
//
//	+---------------------------------------+----+--------+--------+--
//	| Header: JSON on one line, <= 4 MiB     | \n | blob 0 | blob 1 | ...
//	+---------------------------------------+----+--------+--------+--
//
// Blobs are raw bytes, each as long as the header says, in the header's order,
// nothing between or after them. A blob counts only when its digest is right.
package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Version is the newest protocol this release speaks, Oldest the oldest.
const (
	Version = 2
	Oldest  = 1
)

// Exit codes of `moggy node` beside 0 (done) and 1 (not done), from
// sysexits.h where there is one.
const (
	ExitLocked   = 75 // EX_TEMPFAIL: another operator is at work on the node
	ExitProtocol = 76 // EX_PROTOCOL: the other side speaks a newer protocol
)

// ErrNewer is the cause when the other side speaks a protocol, or sent a
// document, that this release does not know.
var ErrNewer = errors.New("made by a newer moggy")

// Hello is the part every answer has.
type Hello struct {
	Protocol int `json:"protocol"`
}

// Init answers `moggy node init`.
type Init struct {
	Hello
	Moggy   string    `json:"moggy"` // version of the binary that answered
	Arch    string    `json:"arch"`  // as Go names it
	MeshKey fleet.Key `json:"mesh_key"`
}

// NextKey answers `moggy node next-key`.
type NextKey struct {
	Hello
	Key fleet.Key `json:"key"`
}

// Missing answers `moggy node missing`: the content that must be sent before
// the manifest can be staged, sorted.
type Missing struct {
	Hello
	Digests []fleet.Digest `json:"digests"`
}

// Staged answers `moggy node stage`.
type Staged struct {
	Hello
	Generation int `json:"generation"`
	// Digest is that of the manifest. Given to activate, it makes sure that
	// what is put in force is what was staged.
	Digest fleet.Digest `json:"digest"`
}

// Standing answers `moggy node confirm`: where the node stands now.
type Standing struct {
	Hello
	Current fleet.GenerationState `json:"current"`
}

// Packages answers `moggy node packages`.
type Packages struct {
	Hello
	Installed []string `json:"installed"` // those that were not there, by their name in Debian
}

// Done answers a command that has nothing to say but that it worked.
type Done struct {
	Hello
}

// Event is one line of an activation's report. A line begins a step, tells
// something about it, or ends the activation.
type Event struct {
	Hello
	At   time.Time `json:"at"`
	Step string    `json:"step,omitempty"` // the step that begins or that Text is about
	Text string    `json:"text,omitempty"` // one thing it did, for people
	End  *Outcome  `json:"end,omitempty"`
}

// Outcome is how an activation ended.
type Outcome struct {
	// Generation is the one in force now; 0 where none is.
	Generation int `json:"generation"`
	// Error is "" when what was asked for is in force and its units run.
	Error string   `json:"error,omitempty"`
	Hints []string `json:"hints,omitempty"`
	// WentBack is set where the generation was switched to, did not become
	// healthy, and the one before was put in force again.
	WentBack bool `json:"went_back,omitempty"`
	// Changed is false where everything was as it should be already.
	Changed bool `json:"changed"`
	// ConfirmBy is when the node goes back by itself, by its own clock; zero where
	// it stays without being confirmed.
	ConfirmBy time.Time `json:"confirm_by,omitzero"`
}

// History answers `moggy node history`: the latest turns, oldest first.
type History struct {
	Hello
	Turns []fleet.Turn `json:"turns"`
}

// Decode reads an answer, and refuses one of a newer protocol.
func Decode[T any](b []byte) (T, error) {
	var hello Hello
	var v T
	if err := json.Unmarshal(b, &hello); err != nil {
		return v, fmt.Errorf("answer of moggy node: %w", err)
	}
	if err := Check(hello.Protocol); err != nil {
		return v, hint.Wrap(fmt.Errorf("the node: %w", err),
			"the node has a newer moggy than you: upgrade yours (moggy version)")
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("answer of moggy node: %w", err)
	}
	return v, nil
}

// Check says whether this release speaks protocol n.
func Check(n int) error {
	switch {
	case n >= Oldest && n <= Version:
		return nil
	case n > Version:
		return fmt.Errorf("speaks protocol %d, this moggy knows up to %d: %w", n, Version, ErrNewer)
	default:
		return fmt.Errorf("protocol %d: no such protocol", n)
	}
}

// DigestOf is the digest of a manifest, as Staged has it.
func DigestOf(m fleet.Manifest) fleet.Digest {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a Manifest is strings and numbers: it always marshals
	}
	return fleet.DigestOf(b)
}
