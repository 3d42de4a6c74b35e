package config

import (
	"regexp"
	"strings"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// image reads a container image's name. The form is that of the OCI Distribution
// Specification, version 1.1, "Pulling manifests", with a registry in front.
func (f fields) image() string {
	it, ok := f.text("image")
	if !ok {
		return ""
	}
	why, suggestion := wrongImage(it.Value)
	if why != "" {
		f.wrong(it.At, suggestion, "image %s: %s", source.Quoted(it.Value), why)
		return ""
	}
	if _, tag, digest := cutImage(it.Value); tag == "" && digest == "" {
		f.d.Warn(it.At, "name a version: "+it.Value+":1.2.3", "%s: image without a tag: what \"latest\" is changes, and nobody sees when", f.b)
		return it.Value + ":latest"
	}
	return it.Value
}

// maxImage bounds a reference, in bytes; longer ones Docker refuses as well.
const maxImage = 255

// wrongImage says why s names no image.
func wrongImage(s string) (why, suggestion string) {
	name, tag, digest := cutImage(s)
	registry, repository, ok := strings.Cut(name, "/")
	switch {
	case s == "":
		return "it is empty", exampleImage
	case strings.Contains(s, "://"):
		return "it is a URL", "did you mean \"" + s[strings.Index(s, "://")+3:] + "\"?"
	case len(s) > maxImage:
		return "it is too long", ""
	case !ok && shaped(repositoryForm, name):
		return "from which registry?", "did you mean \"docker.io/library/" + s + "\"?"
	case ok && !strings.ContainsAny(registry, ".:") && shaped(repositoryForm, name):
		return "from which registry?", "did you mean \"docker.io/" + s + "\"?"
	case !shaped(registryForm, registry), !shaped(repositoryForm, repository):
		return "no image is named so", exampleImage
	case digest != "" && !shaped(digestForm, digest):
		return "a digest is sha256: and 64 hexadecimal digits", ""
	case strings.HasSuffix(s, ":"), tag != "" && !shaped(tagForm, tag):
		return "a tag has letters, digits, _, . and -, at most 128", ""
	}
	return "", ""
}

const (
	registryForm   = `[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?`
	repositoryForm = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
	tagForm        = `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
	digestForm     = `sha256:[0-9a-f]{64}`
)

func shaped(form, s string) bool { return regexp.MustCompile(`^` + form + `$`).MatchString(s) }

// cutImage cuts a reference into its name, tag and digest.
func cutImage(s string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	return name, tag, digest
}
