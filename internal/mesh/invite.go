package mesh

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/path"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// invited is an invitation as a hub keeps it:
//
//	open ──a machine takes it up──▶ joined ──mesh.json has its key──▶ spent
//	  │                               │
//	  └────── the node leaves mesh.json: dropped ──────┘
//
// A machine that joined is believed rather than the file until an apply has
// taken it in. What is spent is remembered only to say so.
type invited struct {
	fleet.Invitation
	// Before is the mesh.json that stood when it came in or was taken up: one
	// that is older than the invitation cannot say that the node left.
	Before fleet.Digest `json:"before,omitempty"`
	// Was is the key that mesh.json had for the node when it was taken up: as
	// long as it has that one, or none, the machine that joined is newer.
	Was   fleet.Key `json:"was,omitzero"`
	Spent bool      `json:"spent,omitempty"`
}

// pending says whether it was taken up and waits for an apply.
func (i invited) pending() bool { return i.Joined != nil && !i.Spent }

const (
	// rememberFor is how long an invitation that expired is kept, to say so.
	rememberFor = 24 * time.Hour
	// maxLife is how far ahead an invitation may expire, by the hub's clock:
	// moggy token gives a week at most. More than that is an operator's clock
	// that is wrong, and would be a token that is good for a year.
	maxLife = 8 * 24 * time.Hour
)

// maxInvitations bounds what the socket's owner can make us keep.
const maxInvitations = 1000

// invitations are those a hub may let in. They outlive restarts in one file.
type invitations struct {
	path string // "" keeps them in memory only
	key  wire.PrivateKey

	mu   sync.Mutex // of all below
	all  []invited
	keys map[fleet.Key]*wire.JoinKeys
}

var errInvited = errors.New("bad invitation")

// openInvitations reads what a hub kept in dir.
func openInvitations(dir string, key wire.PrivateKey) (*invitations, error) {
	s := &invitations{key: key, keys: make(map[fleet.Key]*wire.JoinKeys)}
	if dir == "" {
		return s, nil
	}
	s.path = filepath.Join(dir, "invitations.json")
	b, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("invitations: %w", err)
	}
	if err := json.Unmarshal(b, &s.all); err != nil {
		return nil, fmt.Errorf("invitations: %s: %w", s.path, err)
	}
	for _, i := range s.all {
		if s.keys[i.Key], err = wire.InvitationKeys(key, i.Key); err != nil {
			return nil, fmt.Errorf("invitations: %s: %w", s.path, err)
		}
	}
	return s, nil
}

// saveLocked keeps all as the file's content.
func (s *invitations) saveLocked(all []invited) error {
	if s.path != "" {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(s.path, b, 0o600); err != nil {
			return fmt.Errorf("invitations: %w", err)
		}
	}
	s.all = all
	for k := range s.keys {
		if !slices.ContainsFunc(all, func(i invited) bool { return i.Key == k }) {
			delete(s.keys, k)
		}
	}
	return nil
}

// add takes an invitation in. It replaces an earlier one for the same node that
// nobody took up.
func (s *invitations) add(now time.Time, conf fleet.AgentConfig, digest fleet.Digest, i fleet.Invitation) error {
	if err := fits(now, conf, i); err != nil {
		return fmt.Errorf("%w: %w", errInvited, err)
	}
	keys, err := wire.InvitationKeys(s.key, i.Key)
	if err != nil {
		return fmt.Errorf("%w: %w", errInvited, err)
	}
	i.Joined = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(s.all), func(old invited) bool {
		stale := !old.pending() && now.Unix() > old.Expires+int64(rememberFor.Seconds())
		return old.Node == i.Node && old.Joined == nil || stale
	})
	if slices.ContainsFunc(all, func(old invited) bool { return old.Key == i.Key }) {
		return nil // handed in again after it was taken up
	}
	if len(all) >= maxInvitations {
		return fmt.Errorf("%w: %d are open already", errInvited, len(all))
	}
	if err := s.saveLocked(append(all, invited{Invitation: i, Before: digest})); err != nil {
		return err
	}
	s.keys[i.Key] = keys
	return nil
}

// fits says what is wrong with an invitation.
func fits(now time.Time, conf fleet.AgentConfig, i fleet.Invitation) error {
	shows := now.UTC().Format(time.RFC3339)
	switch {
	case i.Node == "" || i.Key.IsZero():
		return errors.New("no node or no key")
	case !conf.V4.Contains(i.V4) || !conf.V6.Contains(i.V6):
		return fmt.Errorf("address of %s outside of the mesh", i.Node)
	case i.Expires <= now.Unix():
		return fmt.Errorf("expired by this hub's clock, which shows %s: is the operator's right?", shows)
	case i.Expires > now.Add(maxLife).Unix():
		return fmt.Errorf("good for more than %d days by this hub's clock, which shows %s: is the operator's right?", int(maxLife.Hours()/24), shows)
	}
	for _, n := range conf.Nodes {
		if n.Name != i.Node && (n.V4 == i.V4 || n.V6 == i.V6) {
			return fmt.Errorf("%s has the address of %s", i.Node, n.Name)
		}
	}
	return nil
}

// list returns all, without anything secret: a hub has nothing secret of them.
func (s *invitations) list() []fleet.Invitation {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]fleet.Invitation, 0, len(s.all))
	for _, i := range s.all {
		out = append(out, i.Invitation)
	}
	return out
}

// take lets the machine in, if the invitation still stands. Whoever took it up
// may do so again: its answer may have been lost. A knock is answered the same
// and leaves everything as it is.
func (s *invitations) take(now time.Time, key fleet.Key, j wire.Join, nodes []fleet.MeshNode, before fleet.Digest) (wire.JoinStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := slices.IndexFunc(s.all, func(i invited) bool { return i.Key == key })
	if n < 0 {
		return 0, errInvited
	}
	i := s.all[n]
	was := keyOf(nodes, i.Node)
	switch {
	case i.Joined != nil && i.Joined.Key == j.Key && (!i.Spent || was == j.Key):
		return wire.JoinOK, nil
	case i.Joined != nil:
		return wire.JoinUsed, nil
	case now.Unix() >= i.Expires:
		return wire.JoinExpired, nil
	case slices.ContainsFunc(nodes, func(m fleet.MeshNode) bool { return m.Key == j.Key && m.Name != i.Node }):
		return wire.JoinTaken, nil
	case j.Knock():
		return wire.JoinOK, nil
	}
	all := slices.Clone(s.all)
	for o := range all { // the node has one machine: the one that joined last
		all[o].Spent = all[o].Spent || all[o].pending() && all[o].Node == i.Node
	}
	i.Joined = &fleet.Joined{Node: i.Node, Key: j.Key, HostKey: hostKeyText(j.HostKey), At: now.Unix(), Invitation: i.Key}
	i.Before, i.Was = before, was
	all[n] = i
	return wire.JoinOK, s.saveLocked(all)
}

// keyOf is the key of the node of that name, zero if there is none.
func keyOf(nodes []fleet.MeshNode, name fleet.NodeName) fleet.Key {
	for _, n := range nodes {
		if n.Name == name {
			return n.Key
		}
	}
	return fleet.Key{}
}

// settle follows a newer mesh.json: it drops the invitations of nodes that left
// the file, marks those it has taken over, and returns conf with the nodes that
// joined since.
func (s *invitations) settle(conf fleet.AgentConfig, digest fleet.Digest) (fleet.AgentConfig, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	var keep []invited
	var joined []fleet.MeshNode
	for _, i := range s.all {
		listed := keyOf(conf.Nodes, i.Node)
		if listed.IsZero() && !slices.Contains(conf.Awaited, i.Node) && i.Before != digest {
			changed = true
			continue
		}
		if i.pending() && !listed.IsZero() && (listed == i.Joined.Key || listed != i.Was) {
			i.Spent, changed = true, true
		}
		keep = append(keep, i)
		if i.pending() {
			joined = append(joined, fleet.MeshNode{Name: i.Node, Site: i.Site, Key: i.Joined.Key, V4: i.V4, V6: i.V6})
		}
	}
	var err error
	if changed {
		err = s.saveLocked(keep)
	}
	nodes := slices.DeleteFunc(slices.Clone(conf.Nodes), func(n fleet.MeshNode) bool {
		return slices.ContainsFunc(joined, func(j fleet.MeshNode) bool { return j.Name == n.Name || j.Key == n.Key })
	})
	conf.Nodes = append(nodes, joined...)
	return conf, err
}

// joined returns who took up an invitation and waits for an apply.
func (s *invitations) joined() []fleet.Joined {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []fleet.Joined
	for _, i := range s.all {
		if i.pending() {
			out = append(out, *i.Joined)
		}
	}
	return out
}

// keysOf returns the keys shared with the holder of an invitation.
func (s *invitations) keysOf(key fleet.Key) *wire.JoinKeys {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key]
}

// hostKeyText is an ed25519 key as authorized_keys has it (RFC 8709, section 4).
func hostKeyText(key [wire.HostKeySize]byte) string {
	const name = "ssh-ed25519"
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	b = append(b, key[:]...)
	return name + " " + base64.StdEncoding.EncodeToString(b)
}

// join answers a JoinRequest. Who holds no invitation of ours gets no answer.
func (a *Agent) join(now time.Time, b []byte, from path.Source) {
	a.mu.Lock()
	conf, digest := a.file, a.digest
	self, _ := a.split(conf)
	a.mu.Unlock()
	key, err := wire.InvitationOf(b)
	if err != nil || !self.Hub || !from.Route.Direct() {
		return
	}
	keys := a.invites.keysOf(key)
	if keys == nil {
		return
	}
	j, err := keys.OpenRequest(b)
	if err != nil {
		return
	}
	status, err := a.invites.take(now, key, j, conf.Nodes, digest)
	if err != nil {
		a.log.Error("join not kept", fieldError, err)
		return
	}
	if !j.Knock() {
		a.log.Info("join", fieldFrom, from.Route.Addr, fieldKey, j.Key, fieldStatus, int(status))
	}
	if status == wire.JoinOK && !j.Knock() {
		a.changed.Store(true)
		a.poke()
	}
	answer, err := keys.SealReply(wire.Answer{Status: status, At: now.Unix()}, b, rand.Reader)
	if err != nil {
		return
	}
	_ = a.bind.SendTo(from.Route.Addr, from.Local, answer) // it asks again
}

// postInvitation takes an invitation from the operator.
func (a *Agent) postInvitation(w http.ResponseWriter, r *http.Request) {
	var i fleet.Invitation
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&i); err != nil {
		http.Error(w, "invitation: "+err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	conf, digest := a.file, a.digest
	self, _ := a.split(conf)
	a.mu.Unlock()
	if !self.Hub {
		http.Error(w, fmt.Sprintf("%s is no hub: a machine outside cannot reach it", self.Name), http.StatusConflict)
		return
	}
	switch err := a.invites.add(time.Now(), conf, digest, i); {
	case errors.Is(err, errInvited):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		a.log.Info("invitation", fieldNode, i.Node)
		writeJSON(w, struct{}{})
	}
}

func (a *Agent) getInvitations(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, a.invites.list())
}
