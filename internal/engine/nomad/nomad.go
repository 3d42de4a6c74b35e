// Package nomad renders what a node needs to run Nomad, and the jobs that the
// fleet's services are on it. It talks to no Nomad.
package nomad

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/engine/certs"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

const (
	// Unit is Nomad's.
	Unit = "moggy-nomad.service"
	// BinaryPath is where a node has Nomad.
	BinaryPath = "/usr/local/lib/moggy/engines/nomad"
	// ConfigPath is its configuration.
	ConfigPath = "/etc/moggy/nomad.json"
	// RootsPath are the authorities it trusts: the servers'.
	RootsPath = "/etc/moggy/nomad-roots.pem"
	// PortHTTP is the port of its API, on the mesh.
	PortHTTP = 4646
	// GossipSecret is the name of the secret that the servers' gossip is encrypted
	// with. All of them have it.
	GossipSecret = "nomad-gossip"
	// TokenSecret is the name of the token that may do all. Servers have it.
	TokenSecret = "nomad-token"
	// SecretsDir is where a node has such secrets.
	SecretsDir = "/var/lib/moggy/keys/shared"
	// What jobs find a node's site and name under.
	metaSite = "site"
	metaNode = "node"
)

const (
	reloadPath    = "moggy-nomad-reload.path"
	reloadService = "moggy-nomad-reload.service"
	systemdDir    = "/etc/systemd/system/"
)

//go:embed moggy-nomad.service
var unitFile []byte

//go:embed moggy-nomad-reload.path
var reloadPathFile []byte

//go:embed moggy-nomad-reload.service
var reloadServiceFile []byte

// Binary is Nomad's, by architecture.
type Binary interface {
	// Digest is empty where there is none for that architecture at hand.
	Digest(arch string) fleet.Digest
}

// Fleet renders the parts of one fleet.
type Fleet struct {
	fleet   *fleet.Fleet
	lock    *fleet.Lock
	roles   map[fleet.NodeName]fleet.Roles
	servers []fleet.NodeLock
	roots   fleet.File
	binary  Binary

	programs Programs
	hosts    map[fleet.NodeName][]fleet.Service // that may run there
}

// Programs are those that are brought, by what exec says of them.
type Programs interface {
	// Digest of the program for that architecture; empty where it is not known
	// yet.
	Digest(exec, arch string) fleet.Digest
}

// New prepares what all nodes have in common.
func New(f *fleet.Fleet, l *fleet.Lock, b Binary, p Programs) *Fleet {
	n := &Fleet{fleet: f, lock: l, roles: f.Roles(), binary: b, programs: p, hosts: make(map[fleet.NodeName][]fleet.Service)}
	for _, s := range f.Services {
		if s.Static != "" {
			continue
		}
		for _, name := range f.Hosts(s) {
			n.hosts[name] = append(n.hosts[name], s)
		}
	}
	var roots bytes.Buffer
	for _, have := range l.Nodes { // sorted by name
		if !n.roles[have.Name].Server {
			continue
		}
		n.servers = append(n.servers, have)
		if len(have.CA) > 0 {
			roots.Write(pki.CertPEM(have.CA))
		}
	}
	n.roots = fleet.NewFile(RootsPath, 0o644, roots.Bytes())
	return n
}

// Part is what a node needs.
func (n *Fleet) Part(node fleet.Node) fleet.Part {
	server := n.roles[node.Name].Server
	have := n.lock.Node(node.Name)
	secrets := ""
	if server {
		secrets = " -config=" + SecretsDir + "/" + GossipSecret
	}
	p := fleet.Part{
		Engine: "nomad",
		Files: []fleet.File{
			{Path: BinaryPath, Mode: 0o755, Digest: n.binary.Digest(have.Arch)},
			fleet.NewFile(ConfigPath, 0o644, n.config(node, have, server)),
			n.roots,
			fleet.NewFile(systemdDir+Unit, 0o644, n.unit(node.Name, secrets)),
			fleet.NewFile(systemdDir+reloadPath, 0o644, reloadPathFile),
			fleet.NewFile(systemdDir+reloadService, 0o644, reloadServiceFile),
		},
		Units: []fleet.Unit{
			{Name: Unit, RestartOn: []string{BinaryPath, ConfigPath}, ReloadOn: []string{RootsPath}},
			{Name: reloadPath},
		},
	}
	n.wares(&p, have)
	if server {
		p.Checks = append(p.Checks, fleet.Check{
			Name: "Nomad's server answers", Kind: fleet.CheckTCP, Seconds: 30, Unit: Unit,
			Address: netip.AddrPortFrom(have.V4, PortHTTP).String(),
		})
	}
	return p
}

// unit is Nomad's unit file, with the directories made that programs keep their
// data in.
func (n *Fleet) unit(node fleet.NodeName, secrets string) []byte {
	var prepare strings.Builder
	for _, v := range n.volumes(node) {
		fmt.Fprintf(&prepare, "ExecStartPre=/usr/bin/install -d -m 0700 -o nobody %s\n", v.path)
	}
	out := bytes.Replace(unitFile, []byte("@SECRETS@"), []byte(secrets), 1)
	return bytes.Replace(out, []byte("@PREPARE@\n"), []byte(prepare.String()), 1)
}

// wares are what the services that may come need on a node: their programs, and
// their images, so that a node that takes over has them.
func (n *Fleet) wares(p *fleet.Part, here fleet.NodeLock) {
	for _, s := range n.hosts[here.Name] {
		switch {
		case s.Image != "":
			p.Packages = []string{"docker.io"}
			p.Images = append(p.Images, s.Image)
		case s.Local():
			p.Files = append(p.Files, fleet.File{Path: programPath(s), Mode: 0o755, Digest: n.programs.Digest(s.Exec, here.Arch)})
		}
	}
}

// object is JSON with its names sorted, which is the order encoding/json gives.
type object = map[string]any

// config is Nomad's configuration for one node. Everything is at the node's mesh
// address: it is the only one the others know, and the internet sees nothing.
func (n *Fleet) config(node fleet.Node, have fleet.NodeLock, server bool) []byte {
	at := have.V4.String()
	c := object{
		"region": pki.NomadRegion, "datacenter": string(n.fleet.Name), "name": string(node.Name),
		"data_dir": "/var/lib/nomad", "bind_addr": at,
		"advertise":            object{"http": at, "rpc": at, "serf": at},
		"disable_update_check": true, "leave_on_interrupt": false, "leave_on_terminate": false,
		"acl": object{"enabled": true},
		"tls": object{
			"http": true, "rpc": true, "ca_file": RootsPath, "cert_file": certs.NomadPair, "key_file": certs.NomadPair,
			"verify_server_hostname": true, "verify_https_client": true, "tls_min_version": "tls12",
		},
		"client": n.client(node),
		// A server that is silent is left within 2 s: before its clients are given up for
		// what they could not say through it (heartbeat_grace).
		"rpc": object{"keep_alive_interval": "1s", "connection_write_timeout": "1s"},
		"plugin": []object{
			{"docker": object{"config": object{
				"allow_privileged": false,
				"gc":               object{"image": true, "image_delay": "24h", "container": true},
				"extra_labels":     []string{"job_name", "task_name"},
			}}},
			{"raw_exec": object{"config": object{"enabled": false}}},
		},
		"telemetry": object{
			"collection_interval": "10s", "disable_hostname": true, "prometheus_metrics": true,
			"publish_allocation_metrics": true, "publish_node_metrics": true,
		},
	}
	if server {
		c["server"] = n.server()
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		panic(err) // strings, numbers and truths always marshal
	}
	return append(b, '\n')
}

func (n *Fleet) server() object {
	return object{
		"enabled": true, "bootstrap_expect": len(n.servers),
		"server_join":     n.join(),
		"raft_multiplier": 2, // an election after 2 to 4 s without a leader: Raft's own 1 to 2 s come too often where a disk is slow
		// A client says every 1 to 2 s that it is there, and is given up 3 s after it
		// should have: a machine that dies is noticed within 5 s. After an election
		// all have 13 s to say so anew, not Nomad's 300: a follower that passed what they
		// say on to the dead leader gives up dialling it after 10 (helper/pool).
		"min_heartbeat_ttl": "1s", "heartbeat_grace": "3s", "failover_heartbeat_ttl": "13s",
		"max_heartbeats_per_second": 500.0,
		"default_scheduler_config":  object{"memory_oversubscription_enabled": true, "scheduler_algorithm": "spread"},
		"node_gc_threshold":         "72h", "job_gc_threshold": "24h", "eval_gc_threshold": "24h", "deployment_gc_threshold": "24h",
	}
}

func (n *Fleet) join() object {
	var addrs []string
	for _, s := range n.servers {
		addrs = append(addrs, s.V4.String())
	}
	return object{"retry_join": addrs, "retry_interval": "2s", "retry_max": 0}
}

func (n *Fleet) client(node fleet.Node) object {
	c := object{
		"enabled": true, "server_join": n.join(),
		"network_interface": fleet.MeshInterface, "network_speed": 1000,
		"meta": object{metaSite: string(node.Site), metaNode: string(node.Name)},
		"options": object{ // what a machine is, it is not asked of clouds that it is not in; one of them ends Nomad where it finds none
			"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean,consul,vault",
			"driver.denylist":      "java,qemu,raw_exec",
		},
		"chroot_env":  n.chroot(node.Name),
		"gc_interval": "1m", "gc_max_allocs": 100, "gc_disk_usage_threshold": 85,
		"max_kill_timeout": "60s",
	}
	var volumes []object
	for _, v := range n.volumes(node.Name) {
		volumes = append(volumes, object{v.name: object{"path": v.path}})
	}
	if len(volumes) > 0 {
		c["host_volume"] = volumes
	}
	return c
}

// chroot is what a sandboxed program sees of the node's files: the programs that
// are brought and what names and certificates need; all that a program of the
// node's own may need only where there is one, since it is copied for each.
func (n *Fleet) chroot(node fleet.NodeName) object {
	out := object{}
	for _, path := range []string{"/etc/ssl", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group"} {
		out[path] = path
	}
	out[programsNow] = programsInside
	if slices.ContainsFunc(n.hosts[node], func(s fleet.Service) bool { return s.Exec != "" && !s.Local() }) {
		for _, path := range []string{"/bin", "/lib", "/lib64", "/sbin", "/usr"} {
			out[path] = path
		}
	}
	return out
}

const (
	// programsNow are the programs of the generation in force; a link would lead a
	// sandbox nowhere.
	programsNow = "/var/lib/moggy/current/root/usr/local/lib/moggy/services"
	programsDir = "/usr/local/lib/moggy/services"
	// programsInside is where a sandbox has them.
	programsInside = "/moggy/services"
)

// hostVolume is a directory of a node that a job may ask for by name.
type hostVolume struct{ name, path string }

// volumes are those of the programs that are placed on a node.
func (n *Fleet) volumes(node fleet.NodeName) []hostVolume {
	var out []hostVolume
	for _, s := range n.hosts[node] {
		if s.Image != "" || !slices.Contains(n.fleet.Places(s), node) {
			continue
		}
		for _, v := range s.Volumes {
			out = append(out, hostVolume{volumeName(s, v), volumeDir(s, v)})
		}
	}
	return out
}

// Servers are the names of those that vote.
func (n *Fleet) Servers() []fleet.NodeName {
	var out []fleet.NodeName
	for _, s := range n.servers {
		out = append(out, s.Name)
	}
	slices.Sort(out)
	return out
}
