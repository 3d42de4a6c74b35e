package config

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/config/source"
	"github.com/moggyfleet/moggy/internal/fleet"
)

const exampleOperators = `operators = { nico = "ssh-ed25519 AAAA... nico@laptop" }`

// minRSA is the smallest RSA key that is taken, in bits (NIST SP 800-131A).
const minRSA = 2048

// operators reads who may change the fleet. A key is never repeated in what is
// said about it.
func (f fields) operators() []fleet.Operator {
	var out []fleet.Operator
	names, keys := make(map[string]hcl.Range), make(map[string]string)
	for _, entry := range f.entries("operators", "a map from names to keys", exampleOperators) {
		at := entry.KeyExpr.Range()
		name, ok := f.operatorName(entry.KeyExpr)
		if !ok {
			continue
		}
		if first, twice := names[name]; twice {
			f.wrong(at, "", "operator %s: there is one already at %s", source.Quoted(name), source.Place(first))
		}
		names[name] = at
		it, ok := f.textOf("operator "+source.Quoted(name)+": a key is a text", entry.ValueExpr)
		if !ok {
			continue
		}
		key, why, suggestion := authorizedKey(it.Value)
		if why != "" {
			f.wrong(it.At, suggestion, "operator %s: %s", source.Quoted(name), why)
			continue
		}
		blob := strings.Join(strings.Fields(key)[:2], " ")
		if other := keys[blob]; other != "" {
			f.wrong(it.At, "", "operator %s: this is the key of %s already", source.Quoted(name), source.Quoted(other))
			continue
		}
		keys[blob] = name
		out = append(out, fleet.Operator{Name: name, Key: key})
	}
	return out
}

// operatorName reads a key of the map.
func (f fields) operatorName(e hclsyntax.Expression) (string, bool) {
	name, ok := f.key(e, "an operator's name", exampleOperators)
	if ok {
		f.d.checkName(e.Range(), fmt.Sprintf("%s: operator %s", f.b, source.Quoted(name)), name)
	}
	return name, ok
}

// key reads a key of a map: a bare word or a text. what it is, and an example of
// the map, are for people.
func (f fields) key(e hclsyntax.Expression, what, example string) (string, bool) {
	key, ok := e.(*hclsyntax.ObjectConsKeyExpr)
	name := ""
	if ok {
		name = hcl.ExprAsKeyword(key.Wrapped)
		if v, is := source.Literal(key.Wrapped); is == source.IsText {
			name = v.AsString()
		}
	}
	if name == "" {
		f.wrong(e.Range(), example, "%s is a word", what)
	}
	return name, name != ""
}

// entries are those of a map, in order.
func (f fields) entries(name, rule, example string) []hclsyntax.ObjectConsItem {
	a := f.b.body.Attributes[name]
	if a == nil {
		return nil
	}
	object, ok := source.Bare(a.Expr).(*hclsyntax.ObjectConsExpr)
	if !ok {
		_, is := source.Literal(a.Expr)
		f.wrong(a.Expr.Range(), example, "%s is %s, not %s", name, rule, is)
		return nil
	}
	return object.Items
}

// authorizedKey reads a public key as it stands in authorized_keys, and writes
// it anew: nothing else can hide in the line.
func authorizedKey(s string) (key, why, suggestion string) {
	const advice = "a line as in ~/.ssh/id_ed25519.pub"
	if start, _ := source.PrivateKey([]byte(s)); start >= 0 {
		return "", "a private key", advice
	}
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(s))
	switch {
	case err != nil:
		return "", "no public SSH key", advice
	case len(options) > 0:
		return "", "options stand before the key", "write the key alone"
	case len(bytes.TrimSpace(rest)) > 0:
		return "", "more than one line", "one key for each operator"
	case strings.Contains(pub.Type(), "-cert-"):
		return "", "a certificate, not a key", advice
	}
	if c, ok := pub.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
			return "", fmt.Sprintf("an RSA key of %d bits is too weak", k.N.BitLen()), "ssh-keygen -t ed25519 makes a strong one"
		}
	}
	if pub.Type() == ssh.InsecureKeyAlgoDSA { //nolint:staticcheck // named in order to refuse it
		return "", "DSA keys are too weak (OpenSSH takes none any more)", "ssh-keygen -t ed25519 makes a strong one"
	}
	key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	if comment = strings.TrimSpace(source.Printable(strings.ReplaceAll(comment, "\t", " "))); comment != "" {
		key += " " + comment
	}
	return key, "", ""
}

// AuthorizedKey reads a public key that may be an operator's: the one line of
// a .pub file. The error says what is wrong with it, and never repeats it.
func AuthorizedKey(line string) (string, error) {
	key, why, _ := authorizedKey(line)
	if why != "" {
		return "", errors.New(why)
	}
	return key, nil
}
