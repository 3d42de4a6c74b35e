package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image is a container image as a registry has it.
type image struct {
	manifest []byte
	blobs    map[v1.Hash][]byte // its config and its layer
}

// layer is a program as the one layer of an image.
type layer struct {
	packed []byte
	digest v1.Hash // of what is packed
	diff   v1.Hash // of what is in it
}

// nobody runs what needs no more (Debian's user of that name).
const nobody = 65534

// pack makes a layer of a program: the same file always gives the same layer.
func pack(path string) (layer, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return layer{}, err
	}
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	epoch := time.Unix(0, 0)
	passwd := fmt.Sprintf("root:x:0:0::/:/sbin/nologin\nnobody:x:%[1]d:%[1]d::/:/sbin/nologin\n", nobody)
	for _, f := range []struct {
		tar.Header
		content []byte
	}{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, Uid: nobody, Gid: nobody}},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, content: []byte(passwd)},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: filepath.Base(path), Mode: 0o755}, content: program},
	} {
		f.Size, f.ModTime, f.Format = int64(len(f.content)), epoch, tar.FormatUSTAR
		if err := w.WriteHeader(&f.Header); err != nil {
			return layer{}, err
		}
		if _, err := w.Write(f.content); err != nil {
			return layer{}, err
		}
	}
	if err := w.Close(); err != nil {
		return layer{}, err
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	l := layer{packed: packed.Bytes()}
	if l.diff, err = hash(plain.Bytes()); err != nil {
		return layer{}, err
	}
	l.digest, err = hash(l.packed)
	return l, err
}

func hash(b []byte) (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	return h, err
}

// asRoot says whether a program's image begins as root: the counter as databases
// do, to make its folder its own, Traefik as its own image does.
func asRoot(program string) bool { return program == "counter" || program == "traefik" }

// build makes the image of a program that says the tag is its version.
func build(program, tag string, l layer) (image, error) {
	user := fmt.Sprintf("%[1]d:%[1]d", nobody)
	if asRoot(program) {
		user = ""
	}
	config, err := json.Marshal(v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux",
		Config: v1.Config{
			Entrypoint: []string{"/" + program}, User: user,
			Env:          []string{"PATH=/", "VERSION=" + tag},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			Labels:       map[string]string{"org.opencontainers.image.title": program, "org.opencontainers.image.version": tag},
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{l.diff}},
		History: []v1.History{{CreatedBy: "moggy lab"}},
	})
	if err != nil {
		return image{}, err
	}
	digest, err := hash(config)
	if err != nil {
		return image{}, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: digest},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: int64(len(l.packed)), Digest: l.digest}},
	})
	return image{manifest, map[v1.Hash][]byte{digest: config, l.digest: l.packed}}, err
}
