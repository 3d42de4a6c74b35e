package nomad

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/pki"
)

// MetaFleet is what tells a job that moggy made from one that somebody else did:
// the fleet's name.
const MetaFleet = "moggy_fleet"

// TaskName is that of a job's one task, GroupName that of its group, PortName that
// of its port.
const (
	GroupName = "instance"
	TaskName  = "main"
	PortName  = "main"
)

// Times of instances. A deployment that makes no progress is given up and taken
// back; images are on the nodes before it begins.
const (
	checkInterval    = 2 * time.Second
	checkTimeout     = 2 * time.Second
	minHealthy       = 3 * time.Second
	healthyDeadline  = time.Minute
	progressDeadline = 2 * time.Minute
	killTimeout      = 10 * time.Second
	// drained is how long an instance goes on after it was taken from the routes.
	drained = 3 * time.Second
)

// What an instance has where the file says nothing. Memory is kept free for it, in
// MB, and it may take what there is beyond.
const (
	defaultCPU    = 50 // MHz
	defaultMemory = 64
	allMemory     = 1 << 20 // MB: more than any node has, so no limit
)

// Jobs are the fleet's services as Nomad's jobs, sorted by name.
func (n *Fleet) Jobs() []*api.Job {
	var out []*api.Job
	for _, s := range n.fleet.Services {
		if s.Static == "" {
			out = append(out, n.job(s))
		}
	}
	slices.SortFunc(out, func(a, b *api.Job) int { return cmp.Compare(*a.ID, *b.ID) })
	return out
}

func (n *Fleet) job(s fleet.Service) *api.Job {
	j := api.NewServiceJob(string(s.Name), string(s.Name), pki.NomadRegion, 50)
	j.Datacenters = []string{string(n.fleet.Name)}
	j.Meta = map[string]string{MetaFleet: string(n.fleet.Name)}
	g := api.NewTaskGroup(GroupName, s.Count)
	g.Constraints = n.constraints(s)
	g.Spreads = []*api.Spread{api.NewSpread("${meta."+metaSite+"}", 100, nil)}
	g.RestartPolicy = &api.RestartPolicy{
		Attempts: new(3), Interval: new(time.Minute), Delay: new(time.Second), Mode: new("fail"),
	}
	g.ReschedulePolicy = &api.ReschedulePolicy{
		Delay: new(5 * time.Second), DelayFunction: new("exponential"), MaxDelay: new(time.Minute), Unlimited: new(true),
	}
	g.Update = &api.UpdateStrategy{
		MaxParallel: new(1), MinHealthyTime: new(minHealthy), HealthyDeadline: new(healthyDeadline),
		ProgressDeadline: new(progressDeadline), AutoRevert: new(true), HealthCheck: new("task_states"),
	}
	g.ShutdownDelay = new(drained)
	if s.Port > 0 {
		g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: PortName, Value: int(s.Port)}}}}
		g.Services = []*api.Service{n.service(s)}
		if len(g.Services[0].Checks) > 0 {
			g.Update.HealthCheck = new("checks")
		}
	}
	if len(s.Volumes) > 0 {
		// Its data is where it is: a node that is away for a while keeps its instance,
		// and no other gets one beside it.
		g.Disconnect = &api.DisconnectStrategy{LostAfter: new(30 * 24 * time.Hour), Replace: new(false), Reconcile: new(api.ReconcileOptionKeepOriginal)}
	}
	n.storage(g, s)
	g.AddTask(n.task(s))
	j.AddTaskGroup(g)
	return j
}

// constraints are the nodes that the service may run on, one instance on each.
func (n *Fleet) constraints(s fleet.Service) []*api.Constraint {
	out := []*api.Constraint{{Operand: api.ConstraintDistinctHosts, RTarget: "true"}}
	var names []string
	switch {
	case len(s.Volumes) > 0:
		for _, p := range n.fleet.Places(s) {
			names = append(names, regexp.QuoteMeta(string(p)))
		}
	case len(s.On) > 0:
		for _, node := range n.fleet.Candidates(s) {
			names = append(names, regexp.QuoteMeta(string(node.Name)))
		}
	default:
		return out
	}
	slices.Sort(names)
	return append(out, &api.Constraint{LTarget: "${node.unique.name}", Operand: api.ConstraintRegex, RTarget: "^(" + strings.Join(names, "|") + ")$"})
}

func (n *Fleet) service(s fleet.Service) *api.Service {
	out := &api.Service{Name: string(s.Name), PortLabel: PortName, Provider: "nomad", AddressMode: "host"}
	check := api.ServiceCheck{Name: "it is well", PortLabel: PortName, Interval: checkInterval, Timeout: checkTimeout}
	switch s.Health.Kind {
	case fleet.HealthNone:
		return out
	case fleet.HealthTCP:
		check.Type = "tcp"
	case fleet.HealthHTTP:
		check.Type, check.Path, check.Method = "http", s.Health.Path, "GET"
	}
	out.Checks = []api.ServiceCheck{check}
	return out
}

// storage asks for the volumes of a program; a container's are Docker's own.
func (n *Fleet) storage(g *api.TaskGroup, s fleet.Service) {
	if s.Image != "" {
		return
	}
	for _, v := range s.Volumes {
		if g.Volumes == nil {
			g.Volumes = make(map[string]*api.VolumeRequest)
		}
		g.Volumes[string(v.Name)] = &api.VolumeRequest{Name: string(v.Name), Type: "host", Source: volumeName(s, v)}
	}
}

func (n *Fleet) task(s fleet.Service) *api.Task {
	driver := "exec"
	if s.Image != "" {
		driver = "docker"
	}
	t := api.NewTask(TaskName, driver)
	t.KillTimeout = new(killTimeout)
	t.Env = environment(s)
	t.Resources = &api.Resources{CPU: new(defaultCPU), MemoryMB: new(defaultMemory), MemoryMaxMB: new(allMemory)}
	if s.Memory > 0 {
		t.Resources.MemoryMB, t.Resources.MemoryMaxMB = new(int((s.Memory+1<<20-1)>>20)), nil
	}
	t.LogConfig = &api.LogConfig{MaxFiles: new(3), MaxFileSizeMB: new(10)}
	if driver == "docker" {
		container(t, s)
		return t
	}
	program := s.Exec
	if s.Local() {
		program = programsInside + strings.TrimPrefix(programPath(s), programsDir)
		t.Meta = n.digests(s) // another program is another job
	}
	t.SetConfig("command", program)
	if len(s.Args) > 0 {
		t.SetConfig("args", s.Args)
	}
	t.User = "nobody"
	if s.Port > 0 && s.Port < unprivileged {
		t.SetConfig("cap_add", []string{"net_bind_service"})
	}
	for _, v := range s.Volumes {
		t.VolumeMounts = append(t.VolumeMounts, &api.VolumeMount{Volume: new(string(v.Name)), Destination: new(v.Path)})
	}
	return t
}

// unprivileged is the first port that anybody may listen on.
const unprivileged = 1024

// container is what the Docker driver is told. Its volumes have the names that
// they have without Nomad, so that a fleet that moves finds its data.
func container(t *api.Task, s fleet.Service) {
	t.SetConfig("image", s.Image)
	t.SetConfig("image_pull_timeout", "10m")
	t.SetConfig("security_opt", []string{"no-new-privileges"})
	t.SetConfig("cap_drop", []string{"audit_write", "mknod", "net_raw"})
	t.SetConfig("pids_limit", 4096)
	if len(s.Args) > 0 {
		t.SetConfig("args", s.Args)
	}
	if s.Port > 0 {
		t.SetConfig("ports", []string{PortName})
	}
	var mounts []map[string]any
	for _, v := range s.Volumes {
		mounts = append(mounts, map[string]any{"type": "volume", "target": v.Path, "source": fmt.Sprintf("moggy-%s-%s", s.Name, v.Name)})
	}
	if mounts != nil {
		t.SetConfig("mount", mounts)
	}
}

// environment is what an instance is told, with the names that it has without
// Nomad. What the owner wrote comes last, and is taken as it is.
func environment(s fleet.Service) map[string]string {
	env := map[string]string{"MOGGY_SERVICE": string(s.Name), "MOGGY_NODE": "${node.unique.name}"}
	if s.Port > 0 {
		port := strconv.Itoa(int(s.Port))
		env["PORT"] = port
		env["MOGGY_ADDRESS"] = "${NOMAD_IP_" + PortName + "}:" + port
		if s.Image != "" { // in a container, which has an address of its own
			env["MOGGY_ADDRESS"] = "0.0.0.0:" + port
		}
	}
	for _, v := range s.Env {
		env[v.Name] = v.Value
	}
	return env
}

// digests are those of a program's builds, by architecture.
func (n *Fleet) digests(s fleet.Service) map[string]string {
	out := make(map[string]string)
	for _, have := range n.lock.Nodes {
		if d := n.programs.Digest(s.Exec, have.Arch); d != "" && have.Arch != "" {
			out["program_"+have.Arch] = string(d)
		}
	}
	return out
}

func programPath(s fleet.Service) string {
	return programsDir + "/" + string(s.Name) + "/" + path.Base(s.Exec)
}

func volumeName(s fleet.Service, v fleet.Volume) string {
	return string(s.Name) + "--" + string(v.Name)
}

// volumeDir is where a program's volume is on its node.
func volumeDir(s fleet.Service, v fleet.Volume) string {
	return "/var/lib/moggy-volumes/" + string(s.Name) + "/" + string(v.Name)
}
