package wire

import (
	"io"
	"net/netip"

	"golang.org/x/crypto/chacha20poly1305"
)

// Limits of a call.
const (
	MaxEndpoints = 16
	MaxHubs      = 8
)

// CallMe is a Call: "these are the places where I may be reached: try them
// all, now, as I try yours".
type CallMe struct {
	Src   ID
	Stamp Stamp
	// Answer asks for the receiver's own endpoints in return.
	Answer    bool
	Endpoints []netip.AddrPort // at most MaxEndpoints
	Hubs      []ID             // hubs the sender has a session with, at most MaxHubs
}

const (
	callHead  = headSize + len(ID{}) + chacha20poly1305.NonceSizeX
	callFixed = stampSize + 2
)

// SealCall appends c as sent to the pair's peer. It takes 24 bytes of random;
// what exceeds the limits is left out. A call is sealed, not only
// authenticated: addresses behind a NAT are nobody else's business.
func (pair *Pair) SealCall(b []byte, c CallMe, random io.Reader) ([]byte, error) {
	start := len(b)
	b = appendHead(b, Call)
	b = append(b, pair.Self[:]...)
	b = append(b, make([]byte, chacha20poly1305.NonceSizeX)...)
	nonce := b[start+12:]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, err
	}
	plain := make([]byte, stampSize, callFixed+MaxEndpoints*addrPortSize+MaxHubs*len(ID{}))
	c.Stamp.put(plain)
	if c.Answer {
		plain[10] = 1
	}
	eps := c.Endpoints[:min(len(c.Endpoints), MaxEndpoints)]
	hubs := c.Hubs[:min(len(c.Hubs), MaxHubs)]
	plain = append(plain, byte(len(eps)), byte(len(hubs)))
	for _, e := range eps {
		plain = appendAddrPort(plain, e)
	}
	for _, h := range hubs {
		plain = append(plain, h[:]...)
	}
	aead, err := chacha20poly1305.NewX(pair.out.seal[:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, nonce, plain, b[start:start+12]), nil
}

func (pair *Pair) openCall(b []byte) (CallMe, error) {
	if len(b) < callHead+callFixed+chacha20poly1305.Overhead ||
		len(b) > callHead+callFixed+MaxEndpoints*addrPortSize+MaxHubs*len(ID{})+chacha20poly1305.Overhead {
		return CallMe{}, ErrLength
	}
	aead, err := chacha20poly1305.NewX(pair.in.seal[:])
	if err != nil {
		return CallMe{}, err
	}
	plain, err := aead.Open(nil, b[12:callHead], b[callHead:], b[:12])
	if err != nil {
		return CallMe{}, ErrMAC
	}
	c := CallMe{Src: pair.Peer, Stamp: stampAt(plain), Answer: plain[10] == 1}
	n, h := int(plain[12]), int(plain[13])
	rest := plain[callFixed:]
	if c.Stamp.Epoch == 0 || n > MaxEndpoints || h > MaxHubs || len(rest) != n*addrPortSize+h*len(ID{}) {
		return CallMe{}, ErrField
	}
	for ; n > 0; n-- {
		if a := addrPortAt(rest); a.IsValid() {
			c.Endpoints = append(c.Endpoints, a)
		}
		rest = rest[addrPortSize:]
	}
	for ; h > 0; h-- {
		c.Hubs = append(c.Hubs, ID(rest))
		rest = rest[len(ID{}):]
	}
	return c, nil
}

// Keyring holds the keys between this node and all others. It is immutable;
// With makes the next one.
type Keyring struct {
	self  identity
	pairs map[ID]*Pair
}

// Message is what Open returns: Probe, CallMe or Note.
type Message interface{ message() (ID, Stamp) }

func (p Probe) message() (ID, Stamp)  { return p.Src, p.Stamp }
func (c CallMe) message() (ID, Stamp) { return c.Src, c.Stamp }
func (n Note) message() (ID, Stamp)   { return n.Src, n.Stamp }

// SenderOf returns who sent m, and its stamp.
func SenderOf(m Message) (ID, Stamp) { return m.message() }

// Open checks and decodes a Ping, Pong, Call or Notice. The cheapest test
// comes first: length, sender, MAC, then the fields.
func (k *Keyring) Open(b []byte) (Message, error) {
	kind := Classify(b)
	switch kind {
	case Ping, Pong, Call, Notice:
	default:
		return nil, ErrKind
	}
	if (kind == Ping || kind == Pong) && (len(b) < ProbeSize || len(b) > MaxProbeSize) {
		return nil, ErrLength
	}
	pair, ok := k.pairs[ID(b[headSize:])]
	if !ok {
		return nil, ErrSender
	}
	switch kind {
	case Call:
		return wrap(pair.openCall(b))
	case Notice:
		return wrap(pair.openNote(b))
	default:
		return wrap(pair.openProbe(b))
	}
}

func wrap[M Message](m M, err error) (Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
