package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// TestJudge changes one thing in the answer of a node that is well.
func TestJudge(t *testing.T) {
	tests := map[string]struct {
		probe  Name
		change func(*Answer)
		want   Status
		text   string
	}{
		"clock, within the answer's time": {Clock, func(a *Answer) { a.Clock = a.Received }, Passed, ""},
		"clock, a little":                 {Clock, func(a *Answer) { a.Clock = a.Received.Add(5 * time.Second) }, Warned, "5 s ahead of"},
		"clock, two years behind":         {Clock, func(a *Answer) { a.Clock = a.Sent.AddDate(-2, 0, 0); a.NTP = fleet.No }, Failed, "days behind"},
		"clock, kept by nobody":           {Clock, func(a *Answer) { a.NTP = fleet.No }, Warned, "no time server"},
		"no TUN":                          {Kernel, func(a *Answer) { a.Kernel.TUN = "no such device" }, Failed, "/dev/net/tun"},
		"no IPv6 where the site has it":   {Kernel, func(a *Answer) { a.Kernel.NoIPv6 = true }, Failed, "site dc has it"},
		"kernel not looked at":            {Kernel, func(a *Answer) { a.Unknown = map[string]string{"kernel": "late"} }, Passed, "not known: late"},
		"read-only /etc":                  {Disk, func(a *Answer) { a.Mounts = append(a.Mounts, fleet.Mount{Path: "/etc", ReadOnly: true}) }, Failed, "/etc is mounted read-only"},
		"no inodes":                       {Disk, func(a *Answer) { a.Mounts[0].InodesFree = 3 }, Failed, "no more files"},
		"nine tenths":                     {Disk, func(a *Answer) { a.Mounts[0].Free = 1 << 30 }, Warned, "95 % full"},
		"a failure after a warning": {Disk, func(a *Answer) {
			a.Mounts[0].Free = 1 << 30
			a.Mounts = append(a.Mounts, fleet.Mount{Path: "/etc", ReadOnly: true})
		}, Failed, "/etc"},
		"disk of an old moggy": {Disk, func(a *Answer) {
			a.Mounts = nil
			a.Observed.System.DiskTotal = 1 << 30
			a.Observed.System.DiskFree = 1 << 20
		}, Failed, "full"},
		"no memory":       {Memory, func(a *Answer) { a.Observed.System.MemFree = 1 << 20 }, Failed, "used up"},
		"another fleet's": {Generation, func(a *Answer) { a.Observed.Manifest.Fleet = "dogs" }, Failed, "of fleet dogs"},
		"none in force":   {Generation, func(a *Answer) { a.Observed.Current = fleet.GenerationState{}; a.Observed.Manifest = nil }, Failed, "none is in force"},
		"never confirmed": {Generation, func(a *Answer) { a.Observed.Current.Confirmed = false }, Failed, "never confirmed"},
		"on probation": {Generation, func(a *Answer) {
			a.Observed.Current.Confirmed = false
			a.Observed.Probation = &fleet.Probation{By: "nico"}
		}, Warned, "nico"},
		"interrupted":              {Generation, func(a *Answer) { a.Observed.Activation = &fleet.Activation{Generation: 5, Step: "switch"} }, Failed, `interrupted at "switch"`},
		"under way":                {Generation, func(a *Answer) { a.Observed.Activation = &fleet.Activation{Generation: 5, Running: true} }, Warned, "5 is being put"},
		"drift":                    {Drift, func(a *Answer) { a.Observed.Drift = []fleet.Drift{{Path: "/etc/x", Kind: fleet.DriftMissing}} }, Failed, "/etc/x was removed"},
		"packages":                 {Drift, func(a *Answer) { a.Observed.Missing = []string{"wireguard-tools"} }, Failed, "wireguard-tools"},
		"port held":                {Ports, func(a *Answer) { a.Ports[0].Owner = "wg-quick.service" }, Failed, "held by wg-quick.service"},
		"another port":             {Ports, func(a *Answer) { a.MeshPort = 51820 }, Failed, "51820"},
		"agent stopped":            {Agent, func(a *Answer) { a.Observed.Units[0].Active = "inactive" }, Failed, "is stopped"},
		"agent mute":               {Agent, func(a *Answer) { a.Observed.Mesh = nil }, Failed, "does not answer"},
		"agent restless":           {Agent, func(a *Answer) { a.Observed.Units[0].Restarts = 40 }, Warned, "40 times"},
		"unit failed":              {Units, func(a *Answer) { a.Observed.Units[1].Active = "failed" }, Failed, "web.service is failed"},
		"another key":              {Mesh, func(a *Answer) { a.Observed.Mesh.Key = fleet.Key{9} }, Failed, "its key is not the one"},
		"a peer it does not know":  {Mesh, func(a *Answer) { a.Observed.Mesh.Peers = a.Observed.Mesh.Peers[:1] }, Failed, "does not know"},
		"a peer that left":         {Mesh, func(a *Answer) { a.Observed.Mesh.Peers[0].Name = "gone" }, Failed, "does not know"},
		"a hub that is mute":       {Hubs, func(a *Answer) { a.Echoes[1].Ms = 60_000 }, Failed, "none answers"},
		"directory makes no sense": {Disk, func(a *Answer) { a.Observed = nil }, Failed, "makes no sense"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := trio()
			f.Results = func(ID) Result { return pass("") }
			a := well(f, "one")
			if got := func() Result { f.Answers["one"] = a; return f.Judge(ID{"one", tt.probe}) }(); tt.want != Passed && got.Status != Passed {
				t.Errorf("before the change: %+v", got)
			}
			f.known = nil
			tt.change(&a)
			f.Answers["one"] = a
			got := f.Judge(ID{"one", tt.probe})
			if got.Status != tt.want || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%s %q, want %s %q", got.Status, got.Text, tt.want, tt.text)
			}
			if got.Status == Failed && got.Next == "" {
				t.Error("no next command")
			}
		})
	}
}

func TestAttempt(t *testing.T) {
	const debug = "OpenSSH_9.2p1 Debian\ndebug1: Connecting\n"
	tests := map[string]struct {
		a                              Attempt
		through, key, login, root, sys Status
	}{
		"in":              {Attempt{Stdout: "0\nsystemd\n", Stderr: debug + "debug1: Server accepts key: /k ED25519 SHA256:x agent\nTransferred: sent 1"}, Passed, Passed, Passed, Passed, Passed},
		"nobody there":    {Attempt{Code: 255, Stderr: debug + "ssh: connect to host x port 22: Connection refused\n"}, Failed, Failed, Passed, Failed, Failed},
		"another key":     {Attempt{Code: 255, Stderr: "Host key verification failed.\n"}, Passed, Failed, Passed, Failed, Failed},
		"refused":         {Attempt{Code: 255, Stderr: debug + "root@x: Permission denied (publickey).\n"}, Passed, Passed, Failed, Failed, Failed},
		"no sudo":         {Attempt{Code: 1, Stderr: "sudo: a password is required\n"}, Passed, Passed, Passed, Failed, Failed},
		"another init":    {Attempt{Stdout: "0\nrunit\n"}, Passed, Passed, Passed, Passed, Failed},
		"too slow":        {Attempt{Code: 255, Late: true}, Failed, Failed, Passed, Failed, Failed},
		"no shell at all": {Attempt{Code: 1, Stdout: "This account is currently not available.\n"}, Passed, Passed, Passed, Failed, Failed},
	}
	for name, tt := range tests {
		got := []Status{
			tt.a.Through("hub", "1s").Status, tt.a.HostKey("x").Status, tt.a.Login("x", "root", pass("")).Status,
			tt.a.Root("root").Status, tt.a.Systemd().Status,
		}
		for i, want := range []Status{tt.through, tt.key, tt.login, tt.root, tt.sys} {
			if got[i] != want {
				t.Errorf("%s: %d: %s, want %s", name, i, got[i], want)
			}
		}
	}
	if got := tests["nobody there"].a.reason(); got != "ssh: connect to host x port 22: Connection refused" {
		t.Errorf("reason %q", got)
	}
	if got := tests["in"].a.key(); got != "/k ED25519 SHA256:x agent" {
		t.Errorf("key %q", got)
	}
}
