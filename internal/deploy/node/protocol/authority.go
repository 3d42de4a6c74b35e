package protocol

import "github.com/moggyfleet/moggy/internal/fleet"

// Authority answers `moggy node authority`.
type Authority struct {
	Hello
	CA []byte `json:"ca"` // its certificate, DER
}

// Secret answers `moggy node secret`.
type Secret struct {
	Hello
	Digest  fleet.Digest `json:"digest,omitempty"`  // "" where there is none
	Content []byte       `json:"content,omitempty"` // only where it was asked for
}
