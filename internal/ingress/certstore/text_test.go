package certstore

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func readCloser(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

// sealText is seal for what need not be a message.
func sealText(t *testing.T, s Secret, text, additional []byte) []byte {
	t.Helper()
	box, err := chacha20poly1305.NewX(s[:])
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	return box.Seal(nonce, nonce, text, additional)
}
