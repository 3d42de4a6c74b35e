package main

import (
	"strings"
	"testing"
)

// TestLabLeave has a machine join, be changed by hand, and leave over the mesh
// that ends with it; and a hub leave and be met again.
func TestLabLeave(t *testing.T) {
	o := leaver{newFew(t, "test-leave"), make(map[string]string)}
	for _, node := range []string{"hub", "ari"} {
		o.before[node] = o.digests(node)
	}
	first := o.mustRemote("apply", "--yes", "--accept-new")
	text, _ := o.newToken("ari")
	joined := o.joinAt("ari", text)
	if joined.code != 0 {
		t.Fatalf("join: exit code %d\n%s%s", joined.code, joined.out, joined.err)
	}
	second := o.mustRemote("apply", "--yes")
	t.Logf("first apply %s, join %s, second apply %s", first.took, joined.took, second.took)
	t.Run("nothing to leave", func(t *testing.T) {
		o := o.with(t)
		o.refused("bianco", "", "nothing of moggy is on this machine", func() result { return o.at("bianco", "/root/moggy", "leave", "--yes") })
	})
	t.Run("read-only", func(t *testing.T) {
		o := o.with(t)
		o.at("ari", "mount", "--bind", "-o", "ro", "/etc", "/etc")
		o.at("ari", "mount", "-o", "remount,bind,ro", "/etc")
		r := o.at("ari", "/root/moggy", "leave", "--yes")
		if r.code != 1 || !strings.Contains(r.err, "read-only, nothing was touched") {
			t.Errorf("exit code %d, want a refusal\n%s%s", r.code, r.out, r.err)
		}
		if r := o.at("ari", "systemctl", "is-active", "moggy-agent"); r.code != 0 {
			t.Errorf("the agent: %s", r.out)
		}
		o.at("ari", "umount", "/etc")
	})
	t.Run("over the mesh", func(t *testing.T) {
		leaver{o.with(t), o.before}.leaves("ari", "lab", "run", "--name", o.lab, "--", o.moggy, "ssh", "ari", "--")
	})
	t.Run("still in the file", func(t *testing.T) {
		o := o.with(t)
		if r := o.remote("apply", "--yes"); r.code != 1 || !strings.Contains(r.err, "ari") {
			t.Errorf("apply: exit code %d\n%s%s", r.code, r.out, r.err)
		}
	})
	t.Run("a hub, and met again", func(t *testing.T) {
		leaver{o.with(t), o.before}.leaves("hub", "lab", "exec", "--name", o.lab, "hub", "--")
		o := o.with(t)
		if r := o.remote("apply", "--yes"); r.code != 1 || !strings.Contains(r.out+r.err, "moggy forget NODE") {
			t.Errorf("apply without the hub: exit code %d, want a hint at moggy forget\n%s%s", r.code, r.out, r.err)
		}
		if r := o.mustRemote("forget", "hub", "--yes"); !strings.Contains(r.err, "moggy token ari --replace") {
			t.Errorf("forgetting the only hub: it does not say what becomes of ari\n%s", r.err)
		}
		if r := o.remote("apply", "--yes", "--accept-new"); !strings.Contains(r.err, "left as they are") {
			t.Errorf("apply with ari away: exit code %d\n%s%s", r.code, r.out, r.err)
		}
		o.mustRemote("ssh", "hub", "--", "true")
	})
	t.Run("back again", func(t *testing.T) {
		o := o.with(t)
		text, _ := o.newToken("ari", "--replace")
		if r := o.joinAt("ari", text); r.code != 0 {
			t.Errorf("join again: exit code %d\n%s%s", r.code, r.out, r.err)
		}
		o.mustRemote("apply", "--yes")
		o.mustRemote("ssh", "ari", "--", "true")
	})
}

// leaver has looked at the machines before they were nodes.
type leaver struct {
	*operator
	before map[string]string
}

// digests is the whole machine, but for what changes by itself and what belongs
// to the package that an apply installs.
func (o *operator) digests(node string) string {
	o.t.Helper()
	r := o.at(node, "sh", "-c", `cd /; find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /tmp \
		-o -path /run -o -path /usr/share -o -path /usr/lib -o -path /root/moggy -o -path /var/lib/systemd/random-seed -o -path /var/tmp \) -prune \
		-o -printf '%y %m %U %G %p -> %l\n' >/dev/shm/list
		find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /tmp -o -path /run \
		-o -path /usr/share -o -path /usr/lib -o -path /root/moggy -o -path /var/lib/systemd/random-seed -o -path /var/tmp \) -prune \
		-o -type f -exec sha256sum {} + >>/dev/shm/list
		sort /dev/shm/list; rm /dev/shm/list; ip -br link | grep moggy; ls -d /run/moggy* /run/wireguard; systemctl list-units --all --plain 'moggy*'`)
	if r.code != 0 && r.out == "" {
		o.t.Fatal(r.err)
	}
	return r.out
}

// leaves has a machine leave by the command that ends in moggy's, and looks
// whether it is what it was.
func (o leaver) leaves(node string, way ...string) {
	o.t.Helper()
	o.at(node, "sh", "-c", "echo by hand >/etc/moggy/notes")
	r := o.run(append(way, "moggy", "leave", "--yes")...)
	o.t.Logf("leave took %s, exit code %d\n%s%s", r.took, r.code, r.out, r.err)
	o.until("the machine has left", func() bool { return o.at(node, "test", "-e", "/var/lib/moggy").code != 0 })
	if notes := o.at(node, "sh", "-c", "cat /root/moggy-replaced-*/etc-moggy/notes && rm -r /root/moggy-replaced-*"); strings.TrimSpace(notes.out) != "by hand" {
		o.t.Errorf("what was the owner's: %q %s", notes.out, notes.err)
	}
	installed := o.at(node, "dpkg", "-L", "wireguard-tools").out
	var left []string
	for line := range strings.SplitSeq(strings.TrimSpace(difference(o.before[node], o.digests(node))), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && !strings.Contains(installed, fields[len(fields)-1]) && !strings.Contains(installed, fields[len(fields)-2]) {
			left = append(left, line)
		}
	}
	if len(left) > 0 {
		o.t.Errorf("the machine is not what it was:\n%s", strings.Join(left, "\n"))
	}
	if r := o.at(node, "systemctl", "is-active", "ssh"); r.code != 0 {
		o.t.Errorf("sshd: %s", r.out)
	}
}
