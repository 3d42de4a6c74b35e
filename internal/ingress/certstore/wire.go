package certstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// What one node sends another is JSON, sealed with what only the two know
// (Secret): the mesh encrypts already, but whoever shares a node's address, as a
// container on it does, is not the node.
//
//	POST /certificates      0            24
//	Moggy-Node: sender      +------------+-----------------------------------+
//	                        | nonce      | XChaCha20-Poly1305 of the message |
//	                        +------------+-----------------------------------+
//
//	additional data of a question   "moggy certificates v1 ask" 0 sender 0 receiver
//	of its answer                   "moggy certificates v1 answer" 0 sender 0 receiver 0 the question's nonce
//
// Whom no secret opens gets no answer, and the connection is closed. A question
// that is sent twice does nothing the second time.
const (
	// Path is where a node answers the others.
	Path = "/certificates"
	// senderHeader names the sender, so that the receiver knows which secret to try.
	senderHeader = "Moggy-Node"

	callTimeout = 3 * time.Second
	dialTimeout = time.Second
	// quietFor is how long a peer that was not there is not asked again.
	quietFor = 3 * time.Second
	bodyMost = 8 << 20 // bytes of a message
)

// Secret is what two nodes share.
type Secret [32]byte

// String hides it.
func (Secret) String() string { return "(secret)" }

// GoString hides it.
func (Secret) GoString() string { return "(secret)" }

// op is what is asked.
type op string

const (
	opPut     op = "put"     // take Entries
	opCompare op = "compare" // with Sum, or where that differs with Stamps
	opLock    op = "lock"
	opUnlock  op = "unlock"
)

// message is a question or an answer.
type message struct {
	Op      op              `json:"op,omitempty"`
	Entries []entry         `json:"entries,omitempty"`
	Sum     string          `json:"sum,omitempty"`
	Stamps  map[string]mark `json:"stamps,omitempty"`
	Name    string          `json:"name,omitempty"`
	Token   string          `json:"token,omitempty"`
	Same    bool            `json:"same,omitempty"`
	Wanted  []string        `json:"wanted,omitempty"`
	Denied  bool            `json:"denied,omitempty"`
}

func transport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, DialContext: dial}
}

func asking(from, to fleet.NodeName) []byte {
	return fmt.Appendf(nil, "moggy certificates v1 ask\x00%s\x00%s", from, to)
}

func answering(from, to fleet.NodeName, nonce []byte) []byte {
	return fmt.Appendf(nil, "moggy certificates v1 answer\x00%s\x00%s\x00%s", from, to, nonce)
}

// seal encrypts m; its first 24 bytes are the nonce.
func seal(s Secret, m message, additional []byte) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	box, err := chacha20poly1305.NewX(s[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(text)+chacha20poly1305.Overhead)
	rand.Read(nonce) // never fails since Go 1.24
	return box.Seal(nonce, nonce, text, additional), nil
}

var errSealed = errors.New("sealed with another secret")

// open is the reverse of seal, with whichever of the secrets fits.
func open(secrets []Secret, sealed, additional []byte) (m message, with Secret, err error) {
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return m, with, errSealed
	}
	for _, s := range secrets {
		box, err := chacha20poly1305.NewX(s[:])
		if err != nil {
			return m, with, err
		}
		text, err := box.Open(nil, sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:], additional)
		if err != nil {
			continue
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return m, with, fmt.Errorf("message: %w", err)
		}
		return m, s, nil
	}
	return m, with, errSealed
}

var errQuiet = errors.New("not there a moment ago")

// call asks p. One that is not there is not asked again for a moment, so that each
// of many writes does not wait for it.
func (s *Store) call(ctx context.Context, p *peer, m message) (message, error) {
	s.mu.Lock()
	quiet, secrets := time.Now().Before(p.quiet), p.Secrets
	s.mu.Unlock()
	switch {
	case quiet:
		return message{}, errQuiet
	case len(secrets) == 0:
		return message{}, errors.New("no secret is shared with it")
	}
	body, err := seal(secrets[0], m, asking(s.self, p.Name))
	if err != nil {
		return message{}, err
	}
	answer, err := s.post(ctx, p, body)
	if err != nil {
		s.mu.Lock()
		p.quiet = time.Now().Add(quietFor)
		s.mu.Unlock()
		return message{}, err
	}
	out, _, err := open(secrets[:1], answer, answering(p.Name, s.self, body[:chacha20poly1305.NonceSizeX]))
	return out, err
}

func (s *Store) post(ctx context.Context, p *peer, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.Address.String()+Path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(senderHeader, string(s.self))
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers %d", res.StatusCode)
	}
	return io.ReadAll(io.LimitReader(res.Body, bodyMost))
}

// ServeHTTP answers the others; whoever is none gets nothing.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := fleet.NodeName(r.Header.Get(senderHeader))
	secrets := s.secrets(from)
	if r.Method != http.MethodPost || len(secrets) == 0 {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMost))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	m, with, err := open(secrets, body, asking(from, s.self))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	answer, err := s.answer(m)
	if err != nil {
		s.log.Warn("question of another ingress not answered", "peer", from, "error", err)
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	sealed, err := seal(with, answer, answering(s.self, from, body[:chacha20poly1305.NonceSizeX]))
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(sealed) // an error means that nobody listens any more
}

func (s *Store) secrets(of fleet.NodeName) []Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.Name == of {
			p.quiet = time.Time{} // whoever speaks may be asked
			return p.Secrets
		}
	}
	return nil
}

func (s *Store) answer(m message) (message, error) {
	switch m.Op {
	case opPut:
		for _, e := range m.Entries {
			if e.Key == "" || e.Key != clean(e.Key) || strings.Contains(e.Key, "\x00") {
				return message{}, fmt.Errorf("key %q", e.Key)
			}
		}
		return message{}, s.take(m.Entries...)
	case opCompare:
		if m.Stamps == nil {
			return message{Same: m.Sum == sum(s.stamps())}, nil
		}
		ours, wanted := s.differ(m.Stamps)
		return message{Entries: s.some(ours), Wanted: wanted}, nil
	case opLock:
		return message{Denied: !s.give(m.Name, m.Token, time.Now())}, nil
	case opUnlock:
		s.letGo(m.Name, m.Token)
		return message{}, nil
	default:
		return message{}, fmt.Errorf("op %q", m.Op)
	}
}
