package protocol

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Bounds of a stream. A header of 4 MiB names some 20,000 files; a blob of
// 1 GiB is an order more than any binary we know of.
const (
	MaxHeader = 4 << 20
	MaxBlob   = 1 << 30
)

// Header begins the stream that `moggy node stage` reads.
type Header struct {
	Hello
	Manifest fleet.Manifest `json:"manifest"`
	// Blobs are those that follow, in this order; the rest the node has.
	Blobs []Blob `json:"blobs"`
}

// Blob announces content.
type Blob struct {
	Digest fleet.Digest `json:"digest"`
	Size   int64        `json:"size"` // bytes
}

// WriteStream writes a generation's manifest and the blobs the node is missing.
// Open is called for each digest in turn; what it returns is closed.
func WriteStream(w io.Writer, m fleet.Manifest, blobs []Blob, open func(fleet.Digest) (io.ReadCloser, error)) error {
	head, err := json.Marshal(Header{Hello{Version}, m, blobs})
	if err != nil {
		return fmt.Errorf("stage: header: %w", err)
	}
	if len(head) > MaxHeader {
		return fmt.Errorf("stage: a manifest of %d bytes: the most is %d", len(head), MaxHeader)
	}
	if _, err := w.Write(append(head, '\n')); err != nil {
		return fmt.Errorf("stage: header: %w", err)
	}
	for _, b := range blobs {
		if err := writeBlob(w, b, open); err != nil {
			return fmt.Errorf("stage: blob %.12s: %w", b.Digest, err)
		}
	}
	return nil
}

func writeBlob(w io.Writer, b Blob, open func(fleet.Digest) (io.ReadCloser, error)) error {
	r, err := open(b.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(w, r, b.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// ReadHeader reads and checks a stream's header: everything about it, and
// about its manifest, that can be known without the node.
func ReadHeader(r *bufio.Reader) (Header, error) {
	var h Header
	line, err := readLine(r, MaxHeader)
	if err != nil {
		return h, fmt.Errorf("stage: header: %w", err)
	}
	var hello Hello
	if err := json.Unmarshal(line, &hello); err != nil {
		return h, fmt.Errorf("stage: header: %w", err)
	}
	if err := Check(hello.Protocol); err != nil {
		return h, hint.Wrap(fmt.Errorf("stage: the operator's moggy: %w", err), upgradeNode)
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, fmt.Errorf("stage: header: %w", err)
	}
	if err := CheckManifest(h.Manifest); err != nil {
		return h, err
	}
	return h, checkBlobs(h)
}

// ReadManifest reads and checks a manifest on its own.
func ReadManifest(r io.Reader) (fleet.Manifest, error) {
	var m fleet.Manifest
	b, err := io.ReadAll(io.LimitReader(r, MaxHeader+1))
	switch {
	case err != nil:
		return m, fmt.Errorf("manifest: %w", err)
	case len(b) > MaxHeader:
		return m, fmt.Errorf("manifest: longer than %d bytes", MaxHeader)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	return m, CheckManifest(m)
}

func checkBlobs(h Header) error {
	wanted := make(map[fleet.Digest]bool, len(h.Manifest.Files))
	for _, f := range h.Manifest.Files {
		wanted[f.Digest] = true
	}
	for _, b := range h.Blobs {
		switch {
		case !wanted[b.Digest]:
			return fmt.Errorf("stage: blob %q: not in the manifest, or sent twice", b.Digest)
		case b.Size < 0 || b.Size > MaxBlob:
			return fmt.Errorf("stage: blob %.12s: a size of %d bytes", b.Digest, b.Size)
		}
		wanted[b.Digest] = false
	}
	return nil
}

// readLine returns the next line without its end, refusing one that is longer
// than limit before it has taken it all in.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, fmt.Errorf("longer than %d bytes", limit)
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// Total is how many bytes the blobs are together.
func (h Header) Total() int64 {
	var n int64
	for _, b := range h.Blobs {
		n += b.Size
	}
	return n
}

// Mode is the mode of the first file of that content.
func (h Header) Mode(d fleet.Digest) uint32 {
	i := slices.IndexFunc(h.Manifest.Files, func(f fleet.ManifestFile) bool { return f.Digest == d })
	if i < 0 {
		return 0o600
	}
	return h.Manifest.Files[i].Mode
}
