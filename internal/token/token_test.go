package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moggyfleet/moggy/internal/fleet"
)

func sample() Token {
	t := Token{
		Fleet: "cats", Node: "bianco", Site: "madrid",
		V4: netip.MustParseAddr("10.77.0.6"), V6: netip.MustParseAddr("fd77::6"),
		Mesh: fleet.Ranges{V4: netip.MustParsePrefix("10.77.0.0/16"), V6: netip.MustParsePrefix("fd77::/48")},
		Port: 51877, MTU: 1280, Expires: 1_800_000_000,
	}
	for i := range t.Secret {
		t.Secret[i] = byte(i + 200)
	}
	for i, name := range []fleet.NodeName{"cosmo", "maco", "miki"} {
		t.Hubs = append(t.Hubs, fleet.MeshNode{
			Name: name, Site: "dusseldorf", Hub: true, Key: fleet.Key{byte(i + 1)},
			V4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), V6: netip.MustParseAddr(fmt.Sprintf("fd77::%d", i+1)),
			Public: []netip.AddrPort{
				netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:51877", i+11)),
				netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:c0::%d]:51877", i+11)),
			},
		})
	}
	return t
}

var asTheyAre = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

func TestRoundTrip(t *testing.T) {
	want := sample()
	text := want.Encode()
	got, err := Parse("  " + text[:40] + "\n" + text[40:] + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, asTheyAre); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	if len(text) > 700 {
		t.Errorf("a token with three hubs has %d characters; it is pasted by hand", len(text))
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	good := sample().Encode()
	mistyped := []byte(good)
	mistyped[50] = 'A' + (mistyped[50]-'A'+1)%26
	tests := map[string]struct {
		text string
		want error
	}{
		"empty":           {"", ErrNotToken},
		"a sentence":      {"please send me the token", ErrNotToken},
		"an ssh key":      {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI", ErrNotToken},
		"prefix alone":    {prefix, ErrAltered},
		"cut off":         {good[:len(good)-1], ErrAltered},
		"cut in half":     {good[:len(good)/2], ErrAltered},
		"mistyped":        {string(mistyped), ErrAltered},
		"other case":      {prefix + strings.ToLower(good[len(prefix):]), ErrAltered},
		"something added": {good + "A", ErrAltered},
		"newer":           {"moggy2_" + good[len(prefix):], ErrNewer},
		"newer, two":      {"moggy12_abc", ErrNewer},
		"no number":       {"moggy_abc", ErrNotToken},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(tt.text); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParseRefusesWhatNobodyCanJoinWith(t *testing.T) {
	tests := map[string]func(*Token){
		"no hub":           func(t *Token) { t.Hubs = nil },
		"hub without key":  func(t *Token) { t.Hubs[1].Key = fleet.Key{} },
		"hub nowhere":      func(t *Token) { t.Hubs[0].Public = nil },
		"outside the mesh": func(t *Token) { t.V4 = netip.MustParseAddr("192.0.2.1") },
		"IPv6 outside":     func(t *Token) { t.V6 = netip.MustParseAddr("2001:db8::1") },
		"hub outside":      func(t *Token) { t.Hubs[2].V4 = netip.MustParseAddr("192.0.2.1") },
		"hub IPv6 outside": func(t *Token) { t.Hubs[2].V6 = netip.MustParseAddr("2001:db8::1") },
		"a mapped address": func(t *Token) { t.V4 = netip.MustParseAddr("::ffff:10.77.0.6") },
		"a loose range":    func(t *Token) { t.Mesh.V4 = netip.MustParsePrefix("10.77.0.6/16") },
		"no port":          func(t *Token) { t.Port = 0 },
		"no node":          func(t *Token) { t.Node = "" },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			tok := sample()
			spoil(&tok)
			if _, err := Parse(tok.Encode()); !errors.Is(err, ErrAltered) {
				t.Errorf("got %v, want %v", err, ErrAltered)
			}
		})
	}
}

// TestParseRefusesWhatDoesNotEnd cuts and lengthens what a token holds, with the
// sum made anew each time: nobody but a moggy writes such.
func TestParseRefusesWhatDoesNotEnd(t *testing.T) {
	body, err := base64.RawURLEncoding.DecodeString(sample().Encode()[len(prefix):])
	if err != nil {
		t.Fatal(err)
	}
	body = body[:len(body)-sumSize]
	again := func(b []byte) string {
		return prefix + base64.RawURLEncoding.EncodeToString(append(slices.Clone(b), sum(b)...))
	}
	if _, err := Parse(again(body)); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	if _, err := Parse(again(append(slices.Clone(body), 0))); !errors.Is(err, ErrAltered) {
		t.Errorf("a byte more: %v", err)
	}
	for n := 1; n < len(body); n++ {
		if _, err := Parse(again(body[:n])); !errors.Is(err, ErrAltered) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	tok := sample()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		out := fmt.Sprintf(verb, tok) + fmt.Sprintf(verb, &tok) + fmt.Sprintf(verb, tok.Secret)
		for _, leak := range []string{tok.Encode()[40:80], "200, 201", "200 201", "0xc8, 0xc9"} {
			if strings.Contains(out, leak) {
				t.Errorf("%s prints the secret: %s", verb, out)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Encode())
	f.Add("moggy1_")
	f.Add("moggy9_AAAA")
	f.Add("moggy1_AQ")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(tok.Encode())
		if err != nil {
			t.Fatalf("a token that was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(tok, again, asTheyAre); diff != "" {
			t.Errorf("token (-first +again):\n%s", diff)
		}
	})
}

// FuzzFields gives the fields' decoder bytes that the checksum does not guard.
func FuzzFields(f *testing.F) {
	f.Add([]byte{0, 0, 0})
	f.Add([]byte(strings.Repeat("\x04cats", 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		tok := r.token()
		if r.bad || !tok.sound() {
			return
		}
		if _, err := Parse(tok.Encode()); err != nil {
			t.Errorf("%v does not survive: %v", tok, err)
		}
	})
}
