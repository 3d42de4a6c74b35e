package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// firstRelease is the commit whose moggy spoke the first protocol, to its
// operator and on the mesh.
const firstRelease = "a48e094560d2"

// TestLabSkew has moggys of two ages in one fleet: the operator's newer than the
// nodes', both on the mesh, and the operator's older.
func TestLabSkew(t *testing.T) {
	if !allFaults() {
		t.Skip("builds an older moggy: make test-faults")
	}
	o := newFew(t, "test-skew")
	old := *o
	old.moggy = buildCommit(t, firstRelease, "0.0.0-alpha")
	old.mustRemote("apply", "--yes", "--accept-new")
	for _, node := range []string{"ari", "bianco"} {
		token := old.mustRemote("token", node).out
		o.must("lab", "copy", "--name", o.lab, old.moggy, node+":/root/moggy")
		if r := o.runWith(token, "lab", "exec", "--name", o.lab, node, "--", "/root/moggy", "join", "--yes", "-"); r.code != 0 {
			t.Fatalf("join %s with the old moggy: %s%s", node, r.out, r.err)
		}
	}
	old.mustRemote("apply", "--yes")

	t.Run("a newer operator", func(t *testing.T) {
		o := o.with(t)
		if s := o.summary(); s.Up != 3 {
			t.Errorf("%d nodes up, want 3: %+v", s.Up, s.Problems)
		}
		r := o.mustRemote("apply", "--yes", "--node", "ari", "--soak", "1s")
		t.Logf("ari, from the first moggy to this: %.1f s", r.took.Seconds())
	})
	t.Run("a mixed fleet talks", func(t *testing.T) {
		o := o.with(t)
		for _, from := range []string{"hub", "ari", "bianco"} {
			for _, n := range o.summary().Nodes {
				if r := o.at(from, "ping", "-c", "2", "-i", "0.2", "-w", "8", n.V4); r.code != 0 {
					t.Errorf("%s does not reach %s\n%s", from, n.Name, r.out)
				}
			}
		}
		if s := old.with(t).summary(); s.Up != 3 {
			t.Errorf("the older operator sees %d nodes up, want 3: %+v", s.Up, s.Problems)
		}
	})
	t.Run("all of them, rolling", func(t *testing.T) {
		o := o.with(t)
		o.mustRemote("apply", "--yes", "--soak", "1s")
		o.plan(0)
	})
	t.Run("an older operator", func(t *testing.T) {
		behind := *o.with(t)
		behind.moggy = o.with(t).variant(nil, "0.0.0-beta")
		r := behind.remote("apply", "--yes")
		if r.code == 0 || !strings.Contains(r.err, "--downgrade") {
			t.Errorf("apply with an older moggy: exit code %d, want a refusal that names --downgrade\n%s%s", r.code, r.out, r.err)
		}
		t.Logf("he reads:\n%s", r.err)
		behind.mustRemote("apply", "--yes", "--downgrade", "--soak", "1s")
	})
}

// buildCommit builds moggy as it was at a commit.
func buildCommit(t *testing.T, commit, version string) string {
	t.Helper()
	dir := t.TempDir()
	archive := exec.Command("git", "archive", "--format=tar", "--output="+filepath.Join(dir, "tar"), commit)
	archive.Dir = filepath.Join("..", "..")
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("there is no history to take the older moggy from (git fetch --unshallow): %v: %s", err, out)
	}
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", filepath.Join(dir, "tar"), "-C", source).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	bin := filepath.Join(dir, "moggy")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", bin, "./cmd/moggy")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of %s: %v\n%s", commit, err, out)
	}
	return bin
}
