// Package wire is every byte that nodes of the mesh send each other on their
// one UDP port, beside WireGuard's own messages. It is formats and their keys
// only: what to send when is package path's, and nothing here does any input or
// output. This text is the specification.
//
// # One port
//
// WireGuard's messages begin with a type of 1 to 4 and three zero bytes. Ours
// begin with
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|   'm' 0x6d    |   'g' 0x67    |  version 1    |     kind      |
//	+---------------+---------------+---------------+---------------+
//
// so neither can be taken for the other. A datagram that is neither, or of
// another version, is dropped without an answer. All numbers are big-endian.
//
//	0x10 Ping          0x20 Forward       0x30 JoinRequest
//	0x11 Pong          0x21 Deliver       0x31 JoinReply
//	0x12 Call
//	0x13 Notice
//
// # Names and keys
//
// Every node has one Curve25519 key pair, WireGuard's, and all know the public
// keys of all. A node's ID is the first 8 bytes of
// BLAKE2s-256("moggy mesh v1 id" | public key).
//
// Between two nodes nothing is negotiated. With S = X25519(own private, other
// public), the key for a purpose and a direction is
//
//	HKDF-SHA-256(secret S, salt "moggy mesh v1",
//	             info purpose | 0x00 | sender's public | receiver's public)
//
//	"probe"  32 bytes  BLAKE2s-128, keyed      Ping, Pong, Notice
//	"seal"   32 bytes  XChaCha20-Poly1305      Call
//	"relay"  16 bytes  SipHash-2-4, 64 bits    Forward, Deliver
//	"join"   32 bytes  XChaCha20-Poly1305      JoinRequest, JoinReply
//
// The direction is part of a key: what is reflected to its sender is not
// authentic. A receiver refuses what it can by length, kind and ID before it
// computes anything.
//
// # Stamps
//
//	 0               4                               10
//	+---------------+-------------------------------+
//	| epoch, 32 bit |        counter, 48 bit        |
//	+---------------+-------------------------------+
//
// The epoch is drawn at random, not 0, when an agent starts; the counter grows
// with every frame to that receiver. Wall clocks play no part. A receiver takes
// a frame of the epoch it knows if its counter is in a sliding window (RFC 6479)
// and was not there before.
//
// It learns an epoch by proof that the frame is no replay, which is either a
// Pong that echoes a nonce of its own, or a Ping that echoes a challenge. Until
// then it answers Pings with a challenge and believes nothing else in them. A
// new epoch of a known node means that its agent was restarted.
//
// # Ping and Pong
//
//	    0               4               8              12
//	   +---------------+---------------+---------------+
//	 0 | head          | sender's ID                   |
//	   +---------------+---------------+-----+----+----+
//	12 | stamp                               | Fl | 0  |
//	   +---------------+---------------+-----+----+----+
//	24 | nonce                         |
//	   +---------------+---------------+
//	32 | echo                          |
//	   +---------------+---------------+---------------+---------------+----+
//	40 | seen address, 16 bytes, IPv4 mapped (RFC 4291, 2.5.5.2)       |port|
//	   +-----+---------+---------------+---------------+---------------+----+
//	58 |size | 0       |
//	   +-----+---------+---------------+---------------+
//	64 | MAC over bytes 0 to 63                        |
//	   +---------------+---------------+---------------+
//	80 | padding of a Ping, not authenticated, up to size
//
// A Ping asks whether this very route works both ways: the Pong comes back by
// the same route, with the Ping's nonce as echo. Size is the length of the Ping,
// from 80 to 1452 bytes; a Pong repeats it and is 80 bytes long, so an answer is
// never larger than its request. Seen is where the Ping came from, as a STUN
// server would say it; all zero when the Ping was relayed, and in a Ping.
//
// Flags: bit 0 Primary, "I use this route: relay what is for me to where this
// came from". Bit 1 Challenge, in a Pong, "I do not know your epoch: send a Ping
// that echoes this nonce". A Ping's echo is 0 otherwise.
//
// # Call
//
//	   +---------------+---------------+---------------+
//	 0 | head          | sender's ID                   |
//	   +---------------+---------------+---------------+---------------+---
//	12 | nonce, 24 bytes, random
//	   +---------------+---------------+---------------+---------------+---
//	36 | sealed; bytes 0 to 11 are authenticated with it:
//	   |   stamp, 10 | answer wanted, 1 | 0 | endpoints, 1 | hubs, 1
//	   |   endpoints: 16 bytes of address and 2 of port each, at most 16
//	   |   hubs the sender has a session with: 8 bytes of ID each, at most 8
//	   | tag, 16 bytes
//
// "Try to reach me here, now, as I try you": sent through every hub that both
// know. Each side pings all endpoints of the other for some seconds, so that the
// NATs and firewalls of both are open.
//
// # Notice
//
//	   +---------------+---------------+---------------+
//	 0 | head          | sender's ID                   |
//	   +---------------+---------------+-----+----+----+
//	12 | stamp                               |code| 0  |
//	   +---------------+---------------+-----+----+----+
//	24 | about, an ID                  |
//	   +---------------+---------------+---------------+
//	32 | MAC over bytes 0 to 31                        |
//
// Code 1, Unreachable: "I have no address for the node `about`". Code 2,
// Draining: "I am about to stop; use others". Code 3, Serving, of a hub: "the device
// `about`, which is no node and speaks plain WireGuard, talks to me now"; the ID is
// made of its key as a node's is. 48 bytes, less than any frame that it answers.
//
// # Forward and Deliver
//
//	   +---------------+---------------+---------------+
//	 0 | head          | MAC                           |
//	   +---------------+---------------+---------------+
//	12 | from, an ID                   |
//	   +---------------+---------------+
//	20 | Forward: to, an ID; Deliver: the hub's ID
//	   +---------------+---------------+---------------+
//	28 | stamp                               |hops|kind|
//	   +---------------+---------------+-----+----+----+
//	40 | payload: a message of WireGuard's, a Ping, a Pong or a Call
//
// A node sends a Forward to a hub; the hub rewrites the header in place and
// sends a Deliver to the node it is for. What a hub forwards it cannot read, and
// a Deliver is never forwarded: loops cannot form. The MAC covers bytes 12 to 39
// and the first 16 of the payload (WireGuard's type, receiver and counter), with
// the key between sender and hub in a Forward, and between hub and receiver in a
// Deliver; the payload guards itself end to end. Hops is how many hubs may still
// forward the frame, 1 or 2; 0 in a Deliver. Kind is the head's again, where the
// MAC covers it. A hub drops a Forward that is
// replayed. It forwards to where the receiver's last Ping with Primary came
// from, of whatever family.
//
// # Joining
//
// An invitation is a key pair: hubs hold the public half, one machine the
// private one, in a token. Both sides know S = X25519 of the one's private and
// the other's public half.
//
//	   +---------------+---------------+---------------+---------------+---
//	 0 | head          | the invitation's public key, 32 bytes
//	   +---------------+---------------+---------------+---------------+---
//	36 | nonce, 24 bytes, random
//	   +---------------+---------------+---------------+---------------+---
//	60 | sealed; bytes 0 to 59 are authenticated with it
//	   | JoinRequest: mesh key, 32 | SSH host key (ed25519), 32
//	   | JoinReply: status, 1 | 0, 7 bytes | the hub's clock, 8
//	   | tag, 16 bytes
//
// The request is 140 bytes long, the reply 92. Authenticated with a reply is,
// beyond its own head, the whole request that it answers. Status: 1 you are in,
// 2 another machine took the invitation up, 3 it has expired, 4 the mesh key is
// another node's. Whoever does not hold an invitation gets no answer. A request
// whose SSH host key is all zero is a knock: answered the same, it lets nobody in.
package wire
