// Package trust is the certificate authority of a lab: the one that everybody
// in its internet trusts, and that vouches for the servers there under their
// real names. It is not the one that the fleet's own names get their
// certificates from; that is an ACME server like any other.
package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// life is how long its certificates hold: longer than any lab.
const life = 5 * 365 * 24 * time.Hour

// early is how long before their making they hold, for clocks that are late.
const early = 24 * time.Hour

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	root *x509.Certificate
	key  crypto.Signer
	now  func() time.Time

	mu     sync.Mutex
	leaves map[string]*tls.Certificate // by server name
}

var (
	errPEM    = errors.New("not one PEM block")
	errNoName = errors.New("asks for no server by name")
	errSigner = errors.New("not a key that signs")
)

// Make makes an authority: its certificate and its key, as PEM.
func Make(name string, now func() time.Time) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := template(name, now())
	if err != nil {
		return nil, nil, err
	}
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, priv.Public(), priv)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func template(name string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // 20 octets at most (RFC 5280, 4.1.2.2)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-early), NotAfter: now.Add(life),
	}, nil
}

// Load takes up what Make made.
func Load(cert, key []byte, now func() time.Time) (*Authority, error) {
	c, rest := pem.Decode(cert)
	k, restKey := pem.Decode(key)
	if c == nil || k == nil || len(rest)+len(restKey) > 0 {
		return nil, errPEM
	}
	root, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, err
	}
	priv, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := priv.(crypto.Signer)
	if !ok {
		return nil, errSigner
	}
	return &Authority{root: root, key: signer, now: now, leaves: map[string]*tls.Certificate{}}, nil
}

// Issue makes a certificate, with its key as PEM, for names and addresses.
func (a *Authority) Issue(names ...string) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := template(names[0], a.now())
	if err != nil {
		return nil, nil, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, priv.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8), nil
}

// most is how many names a server is given certificates for at most: whoever
// asks for ever new ones is answered, and nothing is kept for him.
const most = 1000

// Certificate is the certificate of the server that a client asks for by name
// (RFC 6066, 3), made when it is first asked for.
func (a *Authority) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" {
		return nil, errNoName
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if leaf := a.leaves[name]; leaf != nil {
		return leaf, nil
	}
	cert, key, err := a.Issue(name)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", name, err)
	}
	leaf, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if len(a.leaves) < most {
		a.leaves[name] = &leaf
	}
	return &leaf, nil
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}
