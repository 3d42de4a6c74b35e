// Package nomad renders what a node needs to run Nomad, and the jobs that the
// fleet's services are on it. It talks to no Nomad.
package nomad

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/netip"
	"slices"

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
}

// New prepares what all nodes have in common.
func New(f *fleet.Fleet, l *fleet.Lock, b Binary) *Fleet {
	n := &Fleet{fleet: f, lock: l, roles: f.Roles(), binary: b}
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
			fleet.NewFile(systemdDir+Unit, 0o644, bytes.Replace(unitFile, []byte("@SECRETS@"), []byte(secrets), 1)),
			fleet.NewFile(systemdDir+reloadPath, 0o644, reloadPathFile),
			fleet.NewFile(systemdDir+reloadService, 0o644, reloadServiceFile),
		},
		Units: []fleet.Unit{
			{Name: Unit, RestartOn: []string{BinaryPath, ConfigPath}, ReloadOn: []string{RootsPath}},
			{Name: reloadPath},
		},
	}
	if server {
		p.Checks = append(p.Checks, fleet.Check{
			Name: "Nomad's server answers", Kind: fleet.CheckTCP, Seconds: 30, Unit: Unit,
			Address: netip.AddrPortFrom(have.V4, PortHTTP).String(),
		})
	}
	return p
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
		"plugin": []object{
			{"docker": object{"config": object{
				"allow_privileged": false,
				"gc":               object{"image": true, "image_delay": "24h", "container": true},
				"extra_labels":     []string{"job_name", "task_name"},
			}}},
			{"raw_exec": object{"config": object{"enabled": false}}},
			{"java": object{"config": object{}}},
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
		"raft_multiplier": 1, // Raft's own times (1 s until an election), for servers that are milliseconds apart
		// A client says every 1 to 2 s that it is there, and is given up 3 s after it
		// should have: a machine that dies is noticed within 5 s. After an election
		// all have 5 s to say so anew, not Nomad's 300.
		"min_heartbeat_ttl": "1s", "heartbeat_grace": "3s", "failover_heartbeat_ttl": "5s",
		"max_heartbeats_per_second": 500.0,
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
		// What a sandboxed program sees of the node's files beside its own.
		"chroot_env": object{
			programsNow: programsDir,
			"/etc/ssl":  "/etc/ssl", "/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts",
			"/etc/nsswitch.conf": "/etc/nsswitch.conf", "/etc/passwd": "/etc/passwd", "/etc/group": "/etc/group",
		},
		"gc_interval": "1m", "gc_max_allocs": 100, "gc_disk_usage_threshold": 85,
		"max_kill_timeout": "60s",
	}
	if volumes := n.volumes(); len(volumes) > 0 {
		c["host_volume"] = volumes
	}
	return c
}

const (
	// programsNow are the programs of the generation in force; a link would lead a
	// sandbox nowhere.
	programsNow = "/var/lib/moggy/current/root/usr/local/lib/moggy/services"
	programsDir = "/usr/local/lib/moggy/services"
)

// volumes are those of all services, by name: a directory is made where a service
// runs.
func (n *Fleet) volumes() []object { return nil }

// Servers are the names of those that vote.
func (n *Fleet) Servers() []fleet.NodeName {
	var out []fleet.NodeName
	for _, s := range n.servers {
		out = append(out, s.Name)
	}
	slices.Sort(out)
	return out
}
