package wire

import (
	"encoding/binary"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// HostKeySize is the size of an SSH host key of type ed25519, in bytes.
const HostKeySize = 32

// Join is a JoinRequest: the holder of an invitation names the machine that
// takes it up.
type Join struct {
	Key     fleet.Key         // the machine's mesh key
	HostKey [HostKeySize]byte // its SSH host key, ed25519; all zero in a knock
}

// Knock says whether the holder only asks what the answer would be: a machine
// learns that its token is refused before it has anything to clean up.
func (j Join) Knock() bool { return j.HostKey == [HostKeySize]byte{} }

// JoinStatus is a hub's answer.
type JoinStatus uint8

// The answers. Whoever does not hold an invitation gets none.
const (
	JoinOK      JoinStatus = 1
	JoinUsed    JoinStatus = 2 // another machine took the invitation up
	JoinExpired JoinStatus = 3 // by the hub's clock
	JoinTaken   JoinStatus = 4 // the machine's key belongs to another node
)

// Sizes of the join's frames, in bytes. The request is the larger.
const (
	joinHead         = headSize + len(fleet.Key{}) + chacha20poly1305.NonceSizeX
	joinRequestPlain = len(fleet.Key{}) + HostKeySize
	joinReplyPlain   = 16
	JoinRequestSize  = joinHead + joinRequestPlain + chacha20poly1305.Overhead
	JoinReplySize    = joinHead + joinReplyPlain + chacha20poly1305.Overhead
)

// JoinKeys are the keys between an invitation and a hub. Each end derives them
// from its own private and the other's public half.
type JoinKeys struct {
	invitation     fleet.Key // its public half names it
	request, reply []byte
}

// InvitationKeys derives them at the hub.
func InvitationKeys(hub PrivateKey, invitation fleet.Key) (*JoinKeys, error) {
	secret, err := newIdentity(hub).shared(invitation)
	if err != nil {
		return nil, err
	}
	return joinKeys(secret, invitation, hub.Public()), nil
}

// TokenKeys derives them at the machine that joins.
func TokenKeys(invitation PrivateKey, hub fleet.Key) (*JoinKeys, error) {
	secret, err := newIdentity(invitation).shared(hub)
	if err != nil {
		return nil, err
	}
	return joinKeys(secret, invitation.Public(), hub), nil
}

func joinKeys(secret []byte, invitation, hub fleet.Key) *JoinKeys {
	return &JoinKeys{
		invitation: invitation,
		request:    derive(secret, "join", invitation, hub, chacha20poly1305.KeySize),
		reply:      derive(secret, "join", hub, invitation, chacha20poly1305.KeySize),
	}
}

// InvitationOf returns which invitation b, a JoinRequest or JoinReply, is
// about: the key to look its JoinKeys up by.
func InvitationOf(b []byte) (fleet.Key, error) {
	switch k := Classify(b); {
	case k == JoinRequest && len(b) != JoinRequestSize, k == JoinReply && len(b) != JoinReplySize:
		return fleet.Key{}, ErrLength
	case k != JoinRequest && k != JoinReply:
		return fleet.Key{}, ErrKind
	}
	return fleet.Key(b[headSize:]), nil
}

// SealRequest returns the frame. It takes 24 bytes of random.
func (k *JoinKeys) SealRequest(j Join, random io.Reader) ([]byte, error) {
	plain := append(append(make([]byte, 0, joinRequestPlain), j.Key[:]...), j.HostKey[:]...)
	return k.seal(JoinRequest, k.request, plain, nil, random)
}

// OpenRequest checks and decodes a JoinRequest.
func (k *JoinKeys) OpenRequest(b []byte) (Join, error) {
	if len(b) != JoinRequestSize {
		return Join{}, ErrLength
	}
	plain, err := k.open(JoinRequest, k.request, b, nil)
	if err != nil {
		return Join{}, err
	}
	j := Join{Key: fleet.Key(plain), HostKey: [HostKeySize]byte(plain[len(fleet.Key{}):])}
	if j.Key.IsZero() {
		return Join{}, ErrField
	}
	return j, nil
}

// Answer is a JoinReply.
type Answer struct {
	Status JoinStatus
	At     int64 // the hub's clock, Unix seconds
}

// SealReply answers request, the frame.
func (k *JoinKeys) SealReply(a Answer, request []byte, random io.Reader) ([]byte, error) {
	plain := make([]byte, joinReplyPlain)
	plain[0] = byte(a.Status)
	binary.BigEndian.PutUint64(plain[8:], uint64(a.At))
	return k.seal(JoinReply, k.reply, plain, request, random)
}

// OpenReply checks and decodes the answer to exactly that request.
func (k *JoinKeys) OpenReply(b, request []byte) (Answer, error) {
	if len(b) != JoinReplySize {
		return Answer{}, ErrLength
	}
	plain, err := k.open(JoinReply, k.reply, b, request)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: JoinStatus(plain[0]), At: int64(binary.BigEndian.Uint64(plain[8:]))}
	if a.Status < JoinOK || a.Status > JoinTaken {
		return Answer{}, ErrField
	}
	return a, nil
}

// seal writes head, invitation and nonce, and what they and bound
// authenticate.
func (k *JoinKeys) seal(kind Kind, key, plain, bound []byte, random io.Reader) ([]byte, error) {
	b := append(appendHead(nil, kind), k.invitation[:]...)
	b = append(b, make([]byte, chacha20poly1305.NonceSizeX)...)
	nonce := b[joinHead-chacha20poly1305.NonceSizeX:]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, nonce, plain, append(b[:joinHead:joinHead], bound...)), nil
}

func (k *JoinKeys) open(kind Kind, key, b, bound []byte) ([]byte, error) {
	if Classify(b) != kind {
		return nil, ErrKind
	}
	if fleet.Key(b[headSize:]) != k.invitation {
		return nil, ErrSender
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	nonce := b[joinHead-chacha20poly1305.NonceSizeX : joinHead]
	plain, err := aead.Open(nil, nonce, b[joinHead:], append(b[:joinHead:joinHead], bound...))
	if err != nil {
		return nil, ErrMAC
	}
	return plain, nil
}
