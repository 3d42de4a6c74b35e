package lock

import (
	"strings"
	"testing"

	"github.com/moggyfleet/moggy/internal/config/source"
)

// TestCA writes an authority's certificate into a lock, another, and none, in the
// form that is read the short way.
func TestCA(t *testing.T) {
	text := fresh2(t)
	l := parseLock(t, text)
	lock := l.Lock()
	for _, ca := range []string{"the first", strings.Repeat("another", 100), ""} {
		n := lock.Node("ari")
		n.CA = []byte(ca)
		lock.Put(n)
		again := parseLock(t, rewrite(t, l, lock))
		if diff := lockDiff(lock, again.Lock()); diff != "" {
			t.Fatalf("read again (-want +got):\n%s\n%s", diff, l.Text())
		}
	}
	if got := string(l.Text()); got != text {
		t.Errorf("something of it stays:\n%s", got)
	}
	bad := strings.Replace(text, "  host_keys", "  ca         = \"no base64\"\n  host_keys", 1)
	read, diags := Parse(source.Text{Name: "fleet.lock.hcl", Content: []byte(bad)})
	compareWithHCL(t, []byte(bad), read, diags)
	if diags.Mistakes() != 1 || !strings.Contains(diags[0].Message, "ca is no certificate") {
		t.Errorf("%v", diags)
	}
}
