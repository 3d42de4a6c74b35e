// Package token is what `moggy token` prints and `moggy join` reads: all that a
// machine which nobody can reach needs in order to find its fleet and be let
// in, once. The format only; package mesh does the joining.
//
// A token is text, "moggy1_" and base64url without padding of
//
//	+---------+------------------------------------------+------------+
//	| version |  fields, in the order of Token, each     |  SHA-256   |
//	|   = 1   |  fixed, or one byte of length and bytes  |  8 bytes   |
//	+---------+------------------------------------------+------------+
//
// The sum is no protection against forgery, which nobody but a hub could be
// the victim of: it tells a token that was cut off or mistyped from a good one.
package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// Errors of Parse. None repeats any of the text.
var (
	ErrNotToken = errors.New("this is no moggy token: those start with " + prefix)
	ErrAltered  = errors.New("this token was altered or cut off: its checksum does not match")
	ErrNewer    = errors.New("this token was made by a newer moggy")
)

const (
	version = 1
	family  = "moggy"
	prefix  = family + "1_"
	sumSize = 8
)

// Secret is the private half of an invitation. It does not print itself.
type Secret [32]byte

// String hides the secret from logs.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from logs.
func (Secret) GoString() string { return "(secret)" }

// Token invites one machine to join as one node.
type Token struct {
	Fleet   fleet.Name
	Node    fleet.NodeName
	Site    fleet.SiteName
	V4, V6  netip.Addr   // the node's mesh addresses
	Mesh    fleet.Ranges // the mesh's ranges
	Port    uint16
	MTU     int
	Secret  Secret
	Expires int64            // Unix seconds
	Hubs    []fleet.MeshNode // whom to ask; Hub is set in each
}

// String says whose token it is, and keeps the secret.
func (t Token) String() string { return fmt.Sprintf("token of fleet %s for node %s", t.Fleet, t.Node) }

// Encode is the token as text. It holds the secret: print it for its owner,
// never log it.
func (t Token) Encode() string {
	b := []byte{version}
	b = appendText(b, string(t.Fleet))
	b = appendText(b, string(t.Node))
	b = appendText(b, string(t.Site))
	b = appendAddr(b, t.V4)
	b = appendAddr(b, t.V6)
	b = append(appendAddr(b, t.Mesh.V4.Addr()), byte(t.Mesh.V4.Bits()))
	b = append(appendAddr(b, t.Mesh.V6.Addr()), byte(t.Mesh.V6.Bits()))
	b = binary.BigEndian.AppendUint16(b, t.Port)
	b = binary.BigEndian.AppendUint16(b, uint16(t.MTU))
	b = append(b, t.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires))
	b = append(b, byte(len(t.Hubs)))
	for _, h := range t.Hubs {
		b = appendText(b, string(h.Name))
		b = appendText(b, string(h.Site))
		b = append(b, h.Key[:]...)
		b = appendAddr(b, h.V4)
		b = appendAddr(b, h.V6)
		b = append(b, byte(len(h.Public)))
		for _, p := range h.Public {
			b = binary.BigEndian.AppendUint16(appendAddr(b, p.Addr()), p.Port())
		}
	}
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sum(b)...))
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:sumSize]
}

// Parse reads a token. White space is ignored, wherever a mail or a terminal
// put it.
func Parse(text string) (Token, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	body, ok := strings.CutPrefix(text, prefix)
	if !ok {
		if number, rest, found := strings.Cut(strings.TrimPrefix(text, family), "_"); found &&
			strings.HasPrefix(text, family) && rest != "" && isNumber(number) {
			return Token{}, ErrNewer
		}
		return Token{}, ErrNotToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) < 1+sumSize || !bytes.Equal(sum(b[:len(b)-sumSize]), b[len(b)-sumSize:]) {
		return Token{}, ErrAltered
	}
	if b[0] != version {
		return Token{}, ErrNewer
	}
	r := reader{b: b[1 : len(b)-sumSize]}
	t := r.token()
	if r.bad || len(r.b) > 0 || !t.sound() {
		return Token{}, ErrAltered
	}
	return t, nil
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// sound says whether the token is one that Encode can have made, and that a
// machine can join with.
func (t Token) sound() bool {
	if t.Node == "" || t.Port == 0 || len(t.Hubs) == 0 || !t.Mesh.V4.IsValid() || !t.Mesh.V6.IsValid() {
		return false
	}
	if !t.Mesh.V4.Contains(t.V4) || !t.Mesh.V6.Contains(t.V6) {
		return false
	}
	return !slices.ContainsFunc(t.Hubs, func(h fleet.MeshNode) bool {
		return h.Key.IsZero() || len(h.Public) == 0 || !t.Mesh.V4.Contains(h.V4) || !t.Mesh.V6.Contains(h.V6)
	})
}

// appendText writes at most 255 bytes.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	return appendText(b, string(a.AsSlice()))
}

// reader takes fields off the front; once bad it stays so, and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	var out []byte
	out, r.b = r.b[:n], r.b[n:]
	return out
}

func (r *reader) byte() int      { return int(r.take(1)[0]) }
func (r *reader) text() string   { return string(r.take(r.byte())) }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

func (r *reader) addr() netip.Addr {
	a, ok := netip.AddrFromSlice([]byte(r.text()))
	if !ok || a.Is4In6() {
		r.bad = true
	}
	return a
}

func (r *reader) prefix() netip.Prefix {
	a := r.addr()
	p := netip.PrefixFrom(a, r.byte())
	if !p.IsValid() || p != p.Masked() {
		r.bad = true
	}
	return p
}

func (r *reader) token() Token {
	t := Token{
		Fleet: fleet.Name(r.text()), Node: fleet.NodeName(r.text()), Site: fleet.SiteName(r.text()),
		V4: r.addr(), V6: r.addr(),
		Mesh: fleet.Ranges{V4: r.prefix(), V6: r.prefix()},
		Port: r.uint16(), MTU: int(r.uint16()),
		Secret:  Secret(r.take(len(Secret{}))),
		Expires: int64(binary.BigEndian.Uint64(r.take(8))),
	}
	for n := r.byte(); n > 0 && !r.bad; n-- {
		h := fleet.MeshNode{
			Name: fleet.NodeName(r.text()), Site: fleet.SiteName(r.text()),
			Key: fleet.Key(r.take(len(fleet.Key{}))),
			V4:  r.addr(), V6: r.addr(), Hub: true,
		}
		for m := r.byte(); m > 0 && !r.bad; m-- {
			h.Public = append(h.Public, netip.AddrPortFrom(r.addr(), r.uint16()))
		}
		t.Hubs = append(t.Hubs, h)
	}
	return t
}
