package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/moggyfleet/moggy/internal/fleet"
)

const hostKeyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

func sampleNode(name fleet.NodeName, i byte) fleet.NodeLock {
	return fleet.NodeLock{
		Name: name, V4: netip.AddrFrom4([4]byte{10, 77, 0, i}), V6: netip.MustParsePrefix(exampleV6).Addr().Next(),
		MeshKey: fleet.Key{1, i}, HostKeys: []string{hostKeyLine}, Arch: "amd64", Generation: int(i),
	}
}

func sampleLock(names ...fleet.NodeName) *fleet.Lock {
	l := &fleet.Lock{Version: LockVersion, Fleet: "cats", Generation: 42, Mesh: fleet.Ranges{
		V4: netip.MustParsePrefix(exampleV4), V6: netip.MustParsePrefix(exampleV6),
	}}
	v6 := l.Mesh.V6.Addr()
	for i, name := range names {
		n := sampleNode(name, byte(i+1))
		v6 = v6.Next()
		n.V6 = v6
		l.Put(n)
	}
	return l
}

// lockEqual compares locks by what their values mean.
func lockDiff(want, got *fleet.Lock) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

func parseLock(t *testing.T, text string) *LockFile {
	t.Helper()
	l, diags := ParseLock(Source{"fleet.lock.hcl", []byte(text)})
	if len(diags) > 0 {
		t.Fatalf("mistakes in\n%s\n%v", text, diags)
	}
	return l
}

func rewrite(t *testing.T, l *LockFile, lock *fleet.Lock) string {
	t.Helper()
	text, err := l.Update(lock)
	if err != nil {
		t.Fatal(err)
	}
	if diff := lockDiff(lock, l.Lock()); diff != "" {
		t.Errorf("the file that was updated says (-want +got):\n%s", diff)
	}
	if diff := lockDiff(lock, parseLock(t, string(text)).Lock()); diff != "" {
		t.Errorf("the text that was written says (-want +got):\n%s", diff)
	}
	return string(text)
}

func TestLockIsWrittenAsFormatted(t *testing.T) {
	lock := sampleLock("bianco", "cosmo")
	lock.Put(fleet.NodeLock{Name: "new"})
	text := rewrite(t, NewLock("fleet.lock.hcl"), lock)
	if diff := cmp.Diff(string(hclwrite.Format([]byte(text))), text); diff != "" {
		t.Errorf("moggy fmt would change it (-formatted +written):\n%s", diff)
	}
	if !strings.HasPrefix(text, "# ") {
		t.Errorf("no header:\n%s", text)
	}
}
