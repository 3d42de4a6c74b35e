// Package pki is the fleet's own certificates: small authorities, each bound by
// name constraints to what its node may vouch for, and the short-lived leaves
// they sign. Time and randomness come in; it keeps nothing, and does not know
// who may ask for what.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"time"
)

const (
	// AuthorityLife is how long an authority is good for: a machine's life. Its
	// key leaves with the machine; who leaves the fleet is in no bundle any more.
	AuthorityLife = 20 * 365 * 24 * time.Hour
	// LeafLife is how long a leaf is good for.
	LeafLife = 72 * time.Hour
	// RenewAfter is the age at which a leaf's owner gets the next one: who signs may
	// be away for two days.
	RenewAfter = LeafLife / 3
	// behind is how much a verifier's clock may be behind the signer's.
	behind = time.Hour
)

// Authority signs leaves within its constraints.
type Authority struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a key of its own.
func NewAuthority(rand io.Reader, now time.Time, c Constraints) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("authority's key: %w", err)
	}
	return selfSigned(rand, now, key, c)
}

// Bound is the same authority, by its key, with other constraints.
func (a *Authority) Bound(rand io.Reader, now time.Time, c Constraints) (*Authority, error) {
	return selfSigned(rand, now, a.key, c)
}

func selfSigned(rand io.Reader, now time.Time, key *ecdsa.PrivateKey, c Constraints) (*Authority, error) {
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	bounds, err := c.extension()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: c.Name},
		NotBefore:    now.Add(-behind),
		NotAfter:     now.Add(AuthorityLife),
		KeyUsage:     x509.KeyUsageCertSign,
		IsCA:         true, BasicConstraintsValid: true, MaxPathLenZero: true,
		ExtraExtensions: []pkix.Extension{bounds},
	}
	der, err := x509.CreateCertificate(rand, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return &Authority{Cert: cert, key: key}, nil
}

// Leaf is what a certificate says of its owner.
type Leaf struct {
	Domains   []string // at least one; the first is its common name as well
	Addresses []netip.Addr
}

// Issue makes a key and a certificate for it: PEM, certificate first, as a file
// has them that is read as both.
func (a *Authority) Issue(rand io.Reader, now time.Time, l Leaf) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("leaf's key: %w", err)
	}
	cert, err := a.Sign(rand, now, key.Public(), l)
	if err != nil {
		return nil, err
	}
	return Pair(cert, key)
}

// Sign makes a certificate, DER, for a key of somebody else.
func (a *Authority) Sign(rand io.Reader, now time.Time, public crypto.PublicKey, l Leaf) ([]byte, error) {
	if len(l.Domains) == 0 {
		return nil, errors.New("a certificate for no name")
	}
	if k, ok := public.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("a certificate for a key that is not of P-256")
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: l.Domains[0]},
		NotBefore:    now.Add(-behind),
		NotAfter:     now.Add(LeafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     l.Domains, BasicConstraintsValid: true,
	}
	for _, addr := range l.Addresses {
		template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
	}
	der, err := x509.CreateCertificate(rand, template, a.Cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", l.Domains[0], err)
	}
	return der, nil
}

func newSerial(rand io.Reader) (*big.Int, error) {
	b := make([]byte, 16) // RFC 5280, section 4.1.2.2: at most 20 octets, positive
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

// NeedsRenewal says whether a leaf is to be replaced by now.
func NeedsRenewal(leaf *x509.Certificate, now time.Time) bool {
	return now.Before(leaf.NotBefore) || now.After(leaf.NotBefore.Add(behind+RenewAfter))
}

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// Pair is a certificate and its key as one PEM file.
func Pair(cert []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return append(CertPEM(cert), pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: secret})...), nil
}

// CertPEM is a certificate, DER, as PEM.
func CertPEM(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}) }

// Marshal is the authority with its key as one PEM file.
func (a *Authority) Marshal() ([]byte, error) { return Pair(a.Cert.Raw, a.key) }

// ParseAuthority reads what Marshal wrote.
func ParseAuthority(text []byte) (*Authority, error) {
	cert, key, err := ParsePair(text)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("not an authority's certificate")
	}
	return &Authority{Cert: cert, key: key}, nil
}

// ParsePair reads a certificate and its key. Errors quote nothing of it.
func ParsePair(text []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	var cert *x509.Certificate
	var key *ecdsa.PrivateKey
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		var err error
		switch {
		case b.Type == certBlock && cert == nil:
			if cert, err = x509.ParseCertificate(b.Bytes); err != nil {
				return nil, nil, fmt.Errorf("certificate: %w", err)
			}
		case b.Type == keyBlock && key == nil:
			any, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			k, ok := any.(*ecdsa.PrivateKey)
			if err != nil || !ok {
				return nil, nil, errors.New("a private key that cannot be read")
			}
			key = k
		}
	}
	switch {
	case cert == nil:
		return nil, nil, errors.New("no certificate in it")
	case key == nil:
		return nil, nil, errors.New("no private key in it")
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, nil, errors.New("the certificate is not of its key")
	}
	return cert, key, nil
}

// CheckAuthority reads an authority's certificate, DER, that a node says is its
// own, and takes it only if it is bound by exactly these constraints.
func CheckAuthority(der []byte, want Constraints, now time.Time) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of an authority: %w", err)
	}
	bounds, err := want.extension()
	if err != nil {
		return nil, err
	}
	wrong := func(what string) error { return fmt.Errorf("authority of %s: %s", want.Name, what) }
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || key.Curve != elliptic.P256():
		return nil, wrong("its key is not of P-256")
	case cert.Subject.CommonName != want.Name || len(cert.Subject.Names) != 1:
		return nil, wrong("it goes by another name")
	case !cert.IsCA || !cert.BasicConstraintsValid || !cert.MaxPathLenZero:
		return nil, wrong("it could make authorities of its own")
	case cert.KeyUsage != x509.KeyUsageCertSign:
		return nil, wrong("its key is for other things too")
	case now.After(cert.NotAfter):
		return nil, wrong("expired")
	case cert.NotAfter.After(now.Add(2 * AuthorityLife)):
		return nil, wrong("good for longer than any")
	case cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil:
		return nil, wrong("it did not sign itself")
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(bounds.Id) {
			if !e.Critical || !bytes.Equal(e.Value, bounds.Value) {
				return nil, wrong("bound to other names than it shall be")
			}
			return cert, nil
		}
	}
	return nil, wrong("bound to no names")
}

var errConstraint = errors.New("not a name that an authority can be bound to")

// oidNameConstraints is of RFC 5280, section 4.2.1.10.
func oidNameConstraints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 30} }
