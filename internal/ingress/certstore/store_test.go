package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/mesh/wire"
)

// node is an ingress node of the tests; cut, nobody reaches it.
type node struct {
	*Store
	dir    string
	server *httptest.Server
	cut    atomic.Bool
}

// cluster is some nodes that know each other.
func cluster(t *testing.T, names ...fleet.NodeName) map[fleet.NodeName]*node {
	t.Helper()
	nodes := make(map[fleet.NodeName]*node)
	for _, name := range names {
		n := &node{dir: t.TempDir()}
		n.open(t, name)
		n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.cut.Load() {
				panic(http.ErrAbortHandler)
			}
			n.ServeHTTP(w, r)
		}))
		t.Cleanup(n.server.Close)
		nodes[name] = n
	}
	for name := range nodes {
		introduce(nodes, name)
	}
	return nodes
}

func (n *node) open(t *testing.T, name fleet.NodeName) {
	t.Helper()
	var err error
	if n.Store, err = Open(n.dir, name, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

func introduce(nodes map[fleet.NodeName]*node, to fleet.NodeName) {
	var peers []Peer
	for name, n := range nodes {
		if name != to {
			pair := min(name, to) + "+" + max(name, to)
			peers = append(peers, Peer{Name: name, Address: netip.MustParseAddrPort(n.server.Listener.Addr().String()), Secrets: []Secret{secretOf(pair)}})
		}
	}
	nodes[to].SetPeers(peers)
}

func secretOf(s fleet.NodeName) (out Secret) { copy(out[:], s); return out }

func (n *node) has(t *testing.T, key, want string) {
	t.Helper()
	got, err := n.Load(t.Context(), key)
	if want == "" {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s on %s: %q %v, want none", key, n.self, got, err)
		}
		return
	}
	if string(got) != want || err != nil {
		t.Errorf("%s on %s: %q %v, want %q", key, n.self, got, err, want)
	}
}

func put(t *testing.T, n *node, key, value string) {
	t.Helper()
	if err := n.Store.Store(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// TestShared is what the others have when Store returns, and a node that was away
// when it is back.
func TestShared(t *testing.T) {
	nodes := cluster(t, "cosmo", "maco", "miki")
	put(t, nodes["cosmo"], "certificates/ca/cats.example/cats.example.crt", "1")
	for _, n := range nodes {
		n.has(t, "certificates/ca/cats.example/cats.example.crt", "1")
	}
	nodes["miki"].cut.Store(true)
	put(t, nodes["maco"], "certificates/ca/cats.example/cats.example.crt", "2")
	put(t, nodes["maco"], "challenge", "c")
	if err := nodes["maco"].Delete(t.Context(), "challenge"); err != nil {
		t.Fatal(err)
	}
	put(t, nodes["miki"], "of miki", "3") // it reaches the others
	nodes["miki"].has(t, "certificates/ca/cats.example/cats.example.crt", "1")
	nodes["cosmo"].has(t, "of miki", "3")

	// miki starts again with what it had, and another that lost its disk with nothing.
	nodes["miki"].cut.Store(false)
	nodes["miki"].open(t, "miki")
	nodes["miki"].has(t, "certificates/ca/cats.example/cats.example.crt", "1")
	nodes["cosmo"].dir = t.TempDir()
	nodes["cosmo"].open(t, "cosmo")
	for name := range nodes {
		introduce(nodes, name)
	}
	for _, n := range []*node{nodes["miki"], nodes["cosmo"]} {
		n.Sync(t.Context())
		n.has(t, "certificates/ca/cats.example/cats.example.crt", "2")
		n.has(t, "of miki", "3")
		n.has(t, "challenge", "")
	}
}

// TestPartition has two halves write, and both keep the later of two.
func TestPartition(t *testing.T) {
	nodes := cluster(t, "cosmo", "maco")
	for _, n := range nodes {
		n.cut.Store(true)
	}
	put(t, nodes["cosmo"], "k", "cosmo's")
	put(t, nodes["maco"], "k", "maco's, later")
	for i := range 300 {
		put(t, nodes["cosmo"], fmt.Sprint("many/", i), "x")
	}
	for name, n := range nodes {
		n.cut.Store(false)
		introduce(nodes, name)
	}
	nodes["cosmo"].Sync(t.Context())
	for _, n := range nodes {
		n.has(t, "k", "maco's, later")
		n.has(t, "many/299", "x")
	}
	if got := nodes["cosmo"].Peers()[0]; got.Heard.IsZero() || got.Problem != "" {
		t.Errorf("%+v", got)
	}
	// A clock that went back does not undo what was written.
	e := nodes["maco"].stamp("k", []byte("after"), false)
	if !e.after(nodes["maco"].entries["k"]) {
		t.Error("a write that is older than what it replaces")
	}
}

// TestStorage is what certmagic expects of a storage.
func TestStorage(t *testing.T) {
	n := cluster(t, "cosmo")["cosmo"]
	for _, k := range []string{"a/b/c", "a/b/d", "a/e", "f"} {
		put(t, n, k, k)
	}
	for _, c := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{"a", false, []string{"a/b", "a/e"}},
		{"a", true, []string{"a/b", "a/b/c", "a/b/d", "a/e"}},
		{"", false, []string{"a", "f"}},
		{"a/b", false, []string{"a/b/c", "a/b/d"}},
	} {
		got, err := n.List(t.Context(), c.path, c.recursive)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("list %q (%t): %v\n%s", c.path, c.recursive, err, diff)
		}
	}
	if _, err := n.List(t.Context(), "none", false); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if i, err := n.Stat(t.Context(), "a/e"); err != nil || !i.IsTerminal || i.Size != 3 || time.Since(i.Modified) > time.Minute {
		t.Errorf("%+v %v", i, err)
	}
	if i, err := n.Stat(t.Context(), "a/b"); err != nil || i.IsTerminal {
		t.Errorf("%+v %v", i, err)
	}
	if !n.Exists(t.Context(), "a/b") || n.Exists(t.Context(), "a/x") || n.Exists(t.Context(), "a/bb") {
		t.Error("exists")
	}
	if err := errors.Join(n.Delete(t.Context(), "a/b"), n.Delete(t.Context(), "never was")); err != nil {
		t.Fatal(err)
	}
	n.has(t, "a/b/c", "")
	n.has(t, "a/e", "a/e")
	files, err := filepath.Glob(filepath.Join(n.dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
}

// TestLock has many on all nodes want the same, and counts who has it at a time;
// and one node that is not there.
func TestLock(t *testing.T) {
	nodes := cluster(t, "cosmo", "maco", "miki")
	nodes["cosmo"].cut.Store(true)
	var holders, times atomic.Int32
	var all sync.WaitGroup
	for _, name := range []fleet.NodeName{"maco", "miki", "maco", "miki"} {
		all.Go(func() {
			n := nodes[name]
			if err := n.Lock(t.Context(), "issue"); err != nil {
				t.Error(err)
				return
			}
			if holders.Add(1) != 1 {
				t.Error("two have it")
			}
			times.Add(1)
			holders.Add(-1)
			if err := n.Unlock(t.Context(), "issue"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if times.Load() != 4 {
		t.Errorf("had %d times", times.Load())
	}
	if err := nodes["miki"].Unlock(t.Context(), "issue"); err == nil {
		t.Error("let go of what it had not")
	}
	if err := nodes["maco"].Lock(t.Context(), "issue"); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := nodes["miki"].Lock(short, "issue"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another had it: %v", err)
	}
	if err := nodes["maco"].Unlock(t.Context(), "issue"); err != nil {
		t.Fatal(err)
	}
	if err := nodes["miki"].Lock(t.Context(), "issue"); err != nil {
		t.Error(err)
	}
	// Who died lets go by time.
	if n := nodes["maco"].Store; n.give("issue", "other", time.Now()) || !n.give("issue", "other", time.Now().Add(lockFor+time.Second)) {
		t.Error("a grant ends when it is not renewed, and not before")
	}
}

// TestStrangers get nothing.
func TestStrangers(t *testing.T) {
	nodes := cluster(t, "cosmo", "maco")
	url := nodes["cosmo"].server.URL + Path
	good, err := seal(secretOf("cosmo+maco"), message{Op: opPut, Entries: []entry{{Key: "k", At: 1, Value: []byte("v")}}}, asking("maco", "cosmo"))
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := seal(secretOf("other"), message{Op: opCompare}, asking("maco", "cosmo"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from string
		body []byte
	}{
		"nobody":                 {"", good},
		"a node of nobody":       {"other", good},
		"itself":                 {"cosmo", good},
		"another secret":         {"maco", wrong},
		"one bit":                {"maco", append([]byte{good[0] ^ 1}, good[1:]...)},
		"nothing":                {"maco", nil},
		"what cosmo itself says": {"maco", mustSeal(t, asking("cosmo", "maco"))},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Body = readCloser(c.body)
		r.Header.Set(senderHeader, c.from)
		if res, err := http.DefaultClient.Do(r); err == nil {
			res.Body.Close()
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	nodes["cosmo"].has(t, "k", "")
}

func mustSeal(t *testing.T, additional []byte) []byte {
	t.Helper()
	b, err := seal(secretOf("cosmo+maco"), message{Op: opCompare}, additional)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSecrets has two nodes derive the same, during a rotation too, and nobody else.
func TestSecrets(t *testing.T) {
	key := func(b byte) (k wire.PrivateKey) { k[1], k[31] = b, 64; return k }
	cfg := fleet.IngressConfig{Nodes: []fleet.IngressNode{
		{Name: "cosmo", Keys: []fleet.Key{key(1).Public(), key(2).Public()}},
		{Name: "maco", Keys: []fleet.Key{key(3).Public()}},
	}}
	of := func(own ...wire.PrivateKey) Secrets {
		s, ok, err := DeriveAll(own, cfg)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return s
	}
	cosmo, maco := of(key(2), key(1)), of(key(3))
	if cosmo.Self != "cosmo" || maco.Self != "maco" {
		t.Errorf("%q %q", cosmo.Self, maco.Self)
	}
	if diff := cmp.Diff(cosmo.Of("maco"), maco.Of("cosmo")); diff != "" {
		t.Error(diff)
	}
	if cosmo.Of("maco")[0] == cosmo.Of("maco")[1] {
		t.Error("two keys, one secret")
	}
	if _, ok, err := DeriveAll([]wire.PrivateKey{key(9)}, cfg); ok || err != nil {
		t.Error("not of this fleet", ok, err)
	}
	if s := fmt.Sprintf("%v %+v %s %#v", cosmo.Of("maco")[0], cosmo.Of("maco")[0], cosmo.Of("maco")[0], cosmo.Of("maco")[0]); s != "(secret) (secret) (secret) (secret)" {
		t.Error(s)
	}
}

// FuzzServe sends anything, sealed and not.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"op":"put","entries":[{"key":"a/b","at":1,"by":"x","value":"AA=="}]}`), true)
	f.Add([]byte(`{"op":"compare","stamps":{"a":{"at":-1,"by":""}}}`), true)
	f.Add([]byte(`{"op":"lock","name":"n","token":"t"}`), true)
	f.Add([]byte("nonsense"), false)
	f.Fuzz(func(t *testing.T, body []byte, sealed bool) {
		s, err := Open(t.TempDir(), "cosmo", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s.SetPeers([]Peer{{Name: "maco", Secrets: []Secret{{1}}}})
		if sealed {
			body = sealText(t, Secret{1}, body, asking("maco", "cosmo"))
		}
		r := httptest.NewRequest(http.MethodPost, Path, readCloser(body))
		r.Header.Set(senderHeader, "maco")
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is what was thrown
					panic(p)
				}
			}()
			s.ServeHTTP(w, r)
		}()
		if !sealed && (w.Body.Len() > 0 || len(s.stamps()) > 0) {
			t.Errorf("a stranger got %q, and left %v", w.Body, s.stamps())
		}
		if _, err := Open(s.dir, "cosmo", slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("what was taken cannot be read again: %v", err)
		}
	})
}
