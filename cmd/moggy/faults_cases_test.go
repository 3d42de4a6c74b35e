package main

import (
	"slices"
	"strings"
	"syscall"
	"time"
)

// calmFaults are none: what a good change costs.
func calmFaults() []fault {
	return []fault{{"a good apply with a changed mesh file loses no packet", true, func(o *operator) {
		flows := o.pingAll()
		for range 2 { // there, and back again
			o.changeMesh()
			r := o.mustRemote("apply", "--yes")
			o.t.Logf("apply of six nodes with a changed mesh file took %.1f s", r.took.Seconds())
		}
		lost, sent := flows.stop()
		o.t.Logf("%d of %d pings between all pairs, 50 ms apart, were lost", len(lost), sent)
		if sent < 30*20 {
			o.t.Errorf("only %d pings were sent", sent)
		}
		for _, l := range lost {
			o.t.Errorf("lost: %s", l)
		}
	}}}
}

// stepFaults happen to one node at every step of its activation.
func stepFaults(o *operator) []fault {
	brief := []string{
		"kill -9 of the activation at switch", "power loss at probation", "ssh cut at switch", "kill -9 of the operator's moggy at probation",
	}
	var out []fault
	at := func(step, what string, strike func(o *operator, node string)) {
		name := what + " at " + step
		out = append(out, fault{name, slices.Contains(brief, name), func(o *operator) {
			o.strike(step, strike)
		}})
	}
	for _, step := range slices.Concat([]string{"stage"}, o.steps(), []string{"probation", "confirm"}) {
		at(step, "kill -9 of the activation", func(o *operator, node string) {
			o.sh(node, "pkill -KILL -f 'moggy [n]ode .*--by .*(activate|stage|confirm)'") // not the shell itself
			o.release(node)
		})
		at(step, "power loss", func(o *operator, node string) {
			o.must("lab", "fail", "--name", o.lab, node) // /run goes with it
			o.must("lab", "heal", "--name", o.lab, node)
		})
		at(step, "ssh cut", func(o *operator, node string) {
			o.must("lab", "cut", "--name", o.lab, "operator")
			o.release(node)
			time.Sleep(10 * time.Second) // how long the laptop is away
			o.must("lab", "heal", "--name", o.lab, "operator")
		})
		at(step, "kill -9 of the operator's moggy", func(o *operator, node string) {
			o.at(node, "true")
		})
	}
	return out
}

// strike lets ari's change come to a step and no further, and strikes then.
func (o *operator) strike(step string, strike func(o *operator, node string)) {
	const node = "ari"
	o.change()
	o.holdAt(node, step)
	u := o.start("apply", "--yes")
	o.reached(node, step, u)
	if strings.Contains(o.t.Name(), "operator's_moggy") {
		u.signal(syscall.SIGKILL)
		<-u.done
		o.release(node)
		return
	}
	strike(o, node)
	code, out := u.end(patience)
	o.t.Logf("the apply that it struck ended with %d: %s", code, said(out))
}

// said is what an operator reads at the end.
func said(out string) string {
	i := strings.Index(out, "moggy: error:")
	if i < 0 {
		return strings.TrimSpace(out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:])
	}
	return strings.TrimSpace(out[i:])
}

// diskFaults are what a machine's disk does.
func diskFaults() []fault {
	const node = "ziggy"
	fails := func(o *operator, want string) {
		o.t.Helper()
		o.change()
		r := o.remote("apply", "--yes")
		if r.code == 0 || !strings.Contains(r.err, want) {
			o.t.Errorf("apply: exit code %d, want a failure that says %q\n%s", r.code, want, r.err)
		}
	}
	// A small file system over the store, so that only the machine under test is
	// full.
	const small = `mount -t tmpfs -o size=64k tmpfs /var/lib/moggy/store && mkdir -p /run/under && true`
	return []fault{
		{"disk full before staging", true, func(o *operator) {
			o.sh(node, small+` && head -c 64k /dev/zero >/var/lib/moggy/store/full || true`)
			fails(o, "the disk is full")
			o.sh(node, "umount /var/lib/moggy/store")
		}},
		{"disk full during staging", false, func(o *operator) {
			o.sh(node, "mount -t tmpfs -o nr_inodes=3 tmpfs /var/lib/moggy/store")
			fails(o, "the disk is full")
			o.sh(node, "umount /var/lib/moggy/store")
		}},
		{"disk full after staging", false, func(o *operator) {
			o.change()
			o.holdAt(node, "verify")
			u := o.start("apply", "--yes")
			o.reached(node, "verify", u)
			o.sh(node, "mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /etc/moggy")
			o.release(node)
			code, out := u.end(patience)
			if code == 0 {
				o.t.Errorf("apply ended well on a full disk\n%s", out)
			}
			o.sh(node, "umount /etc/moggy")
		}},
		{"read-only /etc", true, func(o *operator) {
			o.changeOn(node)
			o.sh(node, "mount --bind /etc /etc && mount -o remount,ro,bind /etc")
			r := o.remote("apply", "--yes")
			if r.code == 0 || !strings.Contains(r.err, "read-only") {
				o.t.Errorf("apply: exit code %d, want a failure that says why\n%s%s", r.code, r.out, r.err)
			}
			o.sh(node, "umount /etc")
		}},
	}
}

// changeOn drifts a managed file as well, so that its path must be written.
func (o *operator) changeOn(node string) {
	o.t.Helper()
	o.sh(node, "rm -f /etc/moggy/mesh.json")
	o.change()
}
