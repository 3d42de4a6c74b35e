// Package node keeps a machine's generations: it stores their content, stages
// them, puts one in force, confirms it or goes back, and says where the machine
// stands. It runs as root on the machine itself, behind `moggy node`; it talks
// to nobody but the machine (package protocol is what the operator hears) and
// does not know what the files it places mean.
//
//	/var/lib/moggy
//	├── store/<sha256>-<mode>        content, immutable, each verified
//	├── generations/42/manifest.json
//	│                  root/etc/...  the whole tree of that generation
//	│                  confirmed     there once the operator confirmed it
//	├── current -> generations/42    ONE rename puts a generation in force
//	├── good -> generations/41       the one confirmed last: what a node goes back to
//	├── state.json                   where we stand beside that link
//	├── ledger.json                  what of ours is outside this directory
//	├── activating.json              there while an activation is under way
//	├── original/etc/...             what a path held before it was managed
//	├── replaced/<time>/etc/...      what a hand had put in a managed path
//	├── first/moggy                  the binary that first contact brought
//	├── keys/mesh.key                made here, never leaves
//	├── history.jsonl                what happened to generations, line by line
//	├── verified.json                a cache: content known by its inode
//	└── lock
//
//	/run/moggy-node
//	├── 42.<time>-<word>.jsonl       what an activation says
//	├── probation.json               there while a generation waits to be confirmed
//	├── hold.lock                    an operator at work on the whole fleet
//	└── hold-at                      a drill's: where an activation shall wait
//
//	/etc/moggy/mesh.json -> /var/lib/moggy/current/root/etc/moggy/mesh.json
//
// Every managed path is a link through current, so that all of them change in
// one rename. Of a generation's tree, small files are copies of the store's and
// large ones (our binary) hard links: an editor that writes through the link
// spoils that generation's copy alone, and the store can mend it.
//
// A drill holds an activation at a step by writing the step's name to hold-at,
// "back" and the step for the way back, or "stage", "confirm", "probation"; it
// goes on once the file is gone or names another:
//
//	echo switch >/run/moggy-node/hold-at    # as root; `moggy node steps` lists them
//
// Unit files are the exception where /var is mounted by itself: systemd reads
// /etc/systemd/system before it mounts anything (systemctl(1), link), so there
// they are copies, written right after the switch.
package node

import (
	"context"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/agent"
	"github.com/moggyfleet/moggy/internal/deploy/node/command"
	"github.com/moggyfleet/moggy/internal/deploy/node/disk"
	"github.com/moggyfleet/moggy/internal/deploy/node/health"
	"github.com/moggyfleet/moggy/internal/deploy/node/history"
	"github.com/moggyfleet/moggy/internal/deploy/node/host"
	"github.com/moggyfleet/moggy/internal/deploy/node/key"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/store"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Dir is where a node keeps all that is ours.
const Dir = "/var/lib/moggy"

// The entries of Dir.
const (
	storeDir       = Dir + "/store"
	generationsDir = Dir + "/generations"
	originalDir    = Dir + "/original"
	replacedDir    = Dir + "/replaced"
	keysDir        = Dir + "/keys"
	firstDir       = Dir + "/first" // the binary that first contact brought
	currentLink    = Dir + "/current"
	goodLink       = Dir + "/good" // the generation that was confirmed last
	stateFile      = Dir + "/state.json"
	ledgerFile     = Dir + "/ledger.json"
	journalFile    = Dir + "/activating.json"
	verifiedFile   = Dir + "/verified.json"
	historyFile    = Dir + "/history.jsonl"
	lockFile       = Dir + "/lock"

	// MeshKeyPath is the private key of the node's mesh address.
	MeshKeyPath = keysDir + "/mesh.key"
)

// runDir is where activations report. It is in memory: a full disk does not
// silence them, and after a reboot none of them runs any more.
const runDir = "/run/moggy-node"

// keptGenerations is how many stay on disk when one is confirmed.
const keptGenerations = 3

// Names from the rooms inside, so that who makes a Node needs to know one
// package.
type (
	// Systemd is the machine's service manager.
	Systemd = systemd.Manager
	// Systemctl is the real one.
	Systemctl = systemd.Systemctl
	// FakeSystemd starts nothing, for tests.
	FakeSystemd = systemd.Fake
	// Runner runs the machine's commands.
	Runner = command.Runner
)

// RunCommand is the real Runner.
func RunCommand(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	return command.Run(ctx, env, name, args...)
}

// Options are what a Node is made from.
type Options struct {
	// Root is "/" on a machine, another directory in tests. Every path this
	// package names is inside it.
	Root    string
	Systemd Systemd
	Run     Runner           // for the package manager
	Now     func() time.Time // the machine's clock
	// Uptime is a clock that nobody can set; nil means Uptime.
	Uptime  func() time.Duration
	Version string // moggy's
	By      string // who asks, for the lock and the reports: "nico@laptop"
	// Await bounds how long units may take to become active, from when they are
	// started; 0 means 30 s. Together with the checks' patience, and a way
	// back, it must stay under a minute: so long may a bad generation keep a node
	// off the mesh.
	Await time.Duration
}

// Node is one machine. It holds no state of its own: everything is on disk,
// and what changes the disk needs the lock (Held).
type Node struct {
	disk    *disk.Disk
	store   store.Store
	systemd Systemd
	host    host.Host
	health  health.Machine
	now     func() time.Time
	uptime  func() time.Duration
	version string
	by      string
	await   time.Duration
	arch    string
	// apart says whether our directory is mounted apart from the unit files', so
	// that systemd would not see what is in it when it starts.
	apart func() bool
	// linkAbove is the size in bytes from which a generation's tree has a second
	// name of the store's file rather than a copy: nobody edits binaries by hand,
	// and three of them would cost most of a small disk.
	linkAbove int64
}

// New returns the node at a root directory. It touches nothing.
func New(o Options) *Node {
	n := &Node{
		disk:    &disk.Disk{Root: o.Root},
		systemd: o.Systemd,
		host:    host.Host{Root: o.Root, Arch: runtime.GOARCH, Run: o.Run, Now: o.Now},
		now:     o.Now,
		uptime:  o.Uptime,
		version: o.Version,
		by:      o.By,
		await:   o.Await,
		arch:    runtime.GOARCH,

		linkAbove: 1 << 20,
	}
	n.store = store.Store{Disk: n.disk, Dir: storeDir, Known: verifiedFile, Now: o.Now}
	if n.uptime == nil {
		n.uptime = Uptime
	}
	if n.await == 0 {
		n.await = 30 * time.Second
	}
	n.health = health.Machine{Run: o.Run, Hubs: n.otherHubs, Mesh: n.agent().Status, Reach: health.Knock, Crashes: systemd.Hopeless(n.systemd)}
	n.apart = func() bool { return !n.disk.SameMount(Dir, protocol.SystemdDir) }
	return n
}

// Arch is the machine's architecture, as Go names it.
func (n *Node) Arch() string { return n.arch }

// Packages installs those that are not there, by their names in Debian, and says
// which they were. It does not need the lock: package managers have their own.
func (n *Node) Packages(ctx context.Context, names []string) ([]string, error) {
	return n.host.Install(ctx, names)
}

// layout makes the directories that must be there. Others than root may pass
// through those that links lead through, and see into none.
func (n *Node) layout() error {
	for _, d := range []struct {
		path string
		mode uint32
	}{
		{Dir, 0o711},
		{storeDir, 0o700},
		{generationsDir, 0o711},
		{keysDir, 0o700},
	} {
		if err := n.disk.Mkdir(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) agent() agent.Socket { return agent.Socket(n.disk.Real(fleet.AgentSocket)) }

// Invite hands an invitation to the agent, which lets the invited machine in.
func (n *Node) Invite(ctx context.Context, i fleet.Invitation) error { return n.agent().Invite(ctx, i) }

func (n *Node) key() key.File { return key.File{Disk: n.disk, Path: MeshKeyPath} }

// MeshKey is the public half of the node's mesh key. It is fs.ErrNotExist
// before Init.
func (n *Node) MeshKey() (fleet.Key, error) { return n.key().Public() }

// Init makes what a node must have before anything can be staged, its mesh key
// above all, and returns the public half. A key that is there is never replaced.
func (h *Held) Init() (fleet.Key, error) {
	k, err := h.key().Make()
	return k, readOnlyHint(err)
}

// NextKey makes the key that the node shall have after current (key.File's Next),
// and lets the agent know it.
func (h *Held) NextKey(ctx context.Context, current, wanted fleet.Key) (fleet.Key, error) {
	k, secret, err := h.key().Next(current, wanted)
	if err == nil {
		err = h.agent().Take(ctx, secret)
	}
	return k, readOnlyHint(err)
}

func (n *Node) history() history.File { return history.File{Disk: n.disk, Path: historyFile} }

// History are the latest turns, oldest first.
func (n *Node) History() ([]fleet.Turn, error) { return n.history().Turns() }

// remember adds a turn. One that cannot be written is lost, which stops nothing:
// a full disk must not keep a node from going back.
func (h *Held) remember(t fleet.Turn) {
	if t.By == "" {
		t.By = h.by
	}
	t.At = h.now().UTC().Truncate(time.Second)
	h.history().Add(t) //nolint:errcheck // see above
}

func generationDir(number int) string {
	return filepath.Join(generationsDir, strconv.Itoa(number))
}

// treePath is where a generation has what a managed path shows.
func treePath(number int, path string) string {
	return filepath.Join(generationDir(number), "root", path)
}

// empty is the generation before the first: nothing of ours anywhere.
func empty() fleet.Manifest { return fleet.Manifest{Version: fleet.ManifestVersion} }
