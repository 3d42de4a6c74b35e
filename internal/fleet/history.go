package fleet

import "time"

// TurnKind says what happened to a node's generation.
type TurnKind string

// The turns of a node's history.
const (
	TurnActivated TurnKind = "activated" // put in force
	TurnRestored  TurnKind = "restored"  // the one in force put right again
	TurnConfirmed TurnKind = "confirmed" // it stays
	TurnWentBack  TurnKind = "went back" // by itself, from From to Generation; Why says what was wrong
	TurnFailed    TurnKind = "failed"    // not put in force; the one before still is
)

// Turn is one entry of a node's history.
type Turn struct {
	At         time.Time `json:"at"`
	Kind       TurnKind  `json:"kind"`
	Generation int       `json:"generation"`     // that it is about
	From       int       `json:"from,omitempty"` // in force before
	By         string    `json:"by,omitempty"`   // nico@laptop; "boot" where nobody asked
	// Commit is the git commit that the fleet file was at, with "+" behind it
	// where the file had changes that were in none; "" where there is no git.
	Commit string `json:"commit,omitempty"`
	Why    string `json:"why,omitempty"`
}
