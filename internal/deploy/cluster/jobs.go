package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/moggyfleet/moggy/internal/engine/nomad"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
	client "github.com/moggyfleet/moggy/internal/nomad"
)

// Pipe runs `moggy node nomad` on a node until its input ends or ctx does.
type Pipe func(ctx context.Context, node fleet.NodeName, in io.Reader, out io.Writer) error

// Progress shows how each service is getting on.
type Progress interface {
	Step(name, text string)
	Done(name, text string)
	Fail(name string, err error)
}

// Jobs are a fleet's services on its Nomad.
type Jobs struct {
	api   *api.Client
	fleet fleet.Name
	done  func()
}

// Connect finds a server that answers. There are no Jobs where no server has a
// generation yet. Whoever has Jobs closes it.
func Connect(ctx context.Context, f *fleet.Fleet, l *fleet.Lock, run Pipe) (*Jobs, error) {
	var failed []error
	for _, s := range Servers(f, l) {
		if l.Node(s).Generation == 0 {
			continue
		}
		c, done, err := client.Client(func(context.Context) (net.Conn, error) { return dial(ctx, s, run), nil })
		if err != nil {
			return nil, err
		}
		try, stop := context.WithTimeout(ctx, time.Minute)
		_, err = c.Operator().RaftGetConfiguration((&api.QueryOptions{}).WithContext(try))
		stop()
		if err == nil {
			return &Jobs{api: c, fleet: f.Name, done: done}, nil
		}
		done()
		failed = append(failed, fmt.Errorf("nomad on %s: %w", s, cause(err)))
	}
	return nil, errors.Join(failed...)
}

// Close ends the connections.
func (j *Jobs) Close() { j.done() }

// cause leaves out what net/http says around an error.
func cause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// dial has what is written come to the node's input, and what it answers be read.
func dial(ctx context.Context, s fleet.NodeName, run Pipe) net.Conn {
	in, toNode := io.Pipe()
	fromNode, out := io.Pipe()
	go func() {
		err := run(ctx, s, in, out)
		if err == nil {
			err = io.EOF
		}
		out.CloseWithError(err)
		in.CloseWithError(err)
	}()
	return client.Conn{Reader: fromNode, Writer: toNode, Closer: func() error {
		toNode.Close()
		return fromNode.Close()
	}}
}

// JobChange is what becomes of one service's job.
type JobChange struct {
	Service fleet.ServiceName `json:"service"`
	Verb    JobVerb           `json:"verb"`
	Lines   []string          `json:"diff,omitempty"` // for people
	// Unplaced says why instances would find no node.
	Unplaced []string `json:"unplaced,omitempty"`

	job   *api.Job
	index uint64
}

// JobVerb says what happens to a job.
type JobVerb string

// The verbs.
const (
	JobAdd    JobVerb = "add"
	JobEdit   JobVerb = "change"
	JobRemove JobVerb = "remove"
)

// Plan asks Nomad what registering the jobs would change, and which jobs of ours
// are in the file no more. Jobs that somebody else made are left alone.
func (j *Jobs) Plan(ctx context.Context, want []*api.Job) ([]JobChange, error) {
	q := (&api.QueryOptions{}).WithContext(ctx)
	have, _, err := j.api.Jobs().ListOptions(&api.JobListOptions{Fields: &api.JobListFields{Meta: true}}, q)
	if err != nil {
		return nil, fmt.Errorf("nomad: %w", err)
	}
	var out []JobChange
	for _, h := range have {
		ours := h.Meta[nomad.MetaFleet] == string(j.fleet)
		listed := slices.ContainsFunc(want, func(w *api.Job) bool { return *w.ID == h.ID })
		switch {
		case ours && !listed && !h.Stop:
			out = append(out, JobChange{Service: fleet.ServiceName(h.ID), Verb: JobRemove, index: h.JobModifyIndex})
		case listed && !ours && !h.Stop:
			return nil, hint.New(fmt.Sprintf("service %q: Nomad has a job of that name that moggy did not make", h.ID),
				"name the service otherwise, or stop that job: moggy nomad job stop %s", h.ID)
		}
	}
	changes := make([]JobChange, len(want))
	failed := make([]error, len(want))
	var wg sync.WaitGroup
	room := make(chan struct{}, 4)
	for i, w := range want {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			changes[i], failed[i] = j.plan(ctx, w)
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if c.Verb != "" {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b JobChange) int { return strings.Compare(string(a.Service), string(b.Service)) })
	return out, nil
}

func (j *Jobs) plan(ctx context.Context, w *api.Job) (JobChange, error) {
	c := JobChange{Service: fleet.ServiceName(*w.ID), job: w}
	resp, _, err := j.api.Jobs().PlanOpts(w, &api.PlanOptions{Diff: true}, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return c, fmt.Errorf("service %q: nomad: %w", *w.ID, err)
	}
	c.index = resp.JobModifyIndex
	switch resp.Diff.Type {
	case "None":
	case "Added":
		c.Verb = JobAdd
	default:
		c.Verb, c.Lines = JobEdit, diffLines(resp.Diff)
	}
	c.Unplaced = unplaced(resp.FailedTGAllocs)
	return c, nil
}

// Apply carries changes out, side by side, each only if the job is still as it was
// when it was planned. It returns when every deployment has ended; one that does
// not become well is taken back by Nomad, and the error has the last lines.
func (j *Jobs) Apply(ctx context.Context, changes []JobChange, p Progress) error {
	failed := make([]error, len(changes))
	var wg sync.WaitGroup
	room := make(chan struct{}, 4)
	for i, c := range changes {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if err := j.apply(ctx, c, p); err != nil {
				failed[i] = hintOf(c.Service, err)
				p.Fail(string(c.Service), failed[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

func hintOf(s fleet.ServiceName, err error) error {
	return hint.Wrap(fmt.Errorf("service %q: %w", s, err), "look at it: moggy nomad job status %s", s)
}

func (j *Jobs) apply(ctx context.Context, c JobChange, p Progress) error {
	w := (&api.WriteOptions{}).WithContext(ctx)
	if c.Verb == JobRemove {
		if _, _, err := j.api.Jobs().Deregister(string(c.Service), false, w); err != nil {
			return err
		}
		p.Done(string(c.Service), "stopped")
		return nil
	}
	resp, _, err := j.api.Jobs().RegisterOpts(c.job, &api.RegisterOptions{EnforceIndex: true, ModifyIndex: c.index}, w)
	if err != nil {
		if strings.Contains(err.Error(), api.RegisterEnforceIndexErrPrefix) {
			return hint.New("somebody else changed it since the plan", "look again, and apply again: moggy plan")
		}
		return err
	}
	return j.follow(ctx, c, resp.EvalID, p)
}

// follow stays with a deployment to its end.
func (j *Jobs) follow(ctx context.Context, c JobChange, eval string, p Progress) error {
	name := string(c.Service)
	d, err := j.deployment(ctx, eval)
	if err != nil || d == nil {
		if err == nil {
			p.Done(name, "as it shall be")
		}
		return err
	}
	q := (&api.QueryOptions{WaitTime: 5 * time.Second}).WithContext(ctx)
	for said := ""; ; {
		got, meta, err := j.api.Deployments().Info(d.ID, q)
		if err != nil {
			return err
		}
		q.WaitIndex = meta.LastIndex
		if s := got.TaskGroups[nomad.GroupName]; s != nil {
			if text := fmt.Sprintf("%d of %d well", s.HealthyAllocs, s.DesiredTotal); text != said {
				said = text
				p.Step(name, text)
			}
		}
		switch got.Status {
		case api.DeploymentStatusSuccessful:
			p.Done(name, said)
			return nil
		case api.DeploymentStatusFailed, api.DeploymentStatusCancelled:
			return j.why(ctx, c, got)
		}
	}
}

// deployment is the one that an evaluation began, nil where nothing had to be
// deployed. It waits for the scheduler.
func (j *Jobs) deployment(ctx context.Context, eval string) (*api.Deployment, error) {
	q := (&api.QueryOptions{WaitTime: 5 * time.Second}).WithContext(ctx)
	for {
		e, meta, err := j.api.Evaluations().Info(eval, q)
		if err != nil {
			return nil, err
		}
		q.WaitIndex = meta.LastIndex
		switch e.Status {
		case api.EvalStatusPending:
			continue
		case api.EvalStatusComplete:
			if e.DeploymentID == "" {
				if why := unplaced(e.FailedTGAllocs); why != nil {
					return nil, errors.New("no node fits: " + strings.Join(why, "; "))
				}
				return nil, nil
			}
			return &api.Deployment{ID: e.DeploymentID}, nil
		}
		return nil, fmt.Errorf("the scheduler says %s: %s", e.Status, e.StatusDescription)
	}
}

// why is the error of a deployment that failed: what the last instance that is not
// well said, and what became of the deployment.
func (j *Jobs) why(ctx context.Context, c JobChange, d *api.Deployment) error {
	err := errors.New(strings.ToLower(d.StatusDescription[:1]) + d.StatusDescription[1:])
	allocs, _, aerr := j.api.Deployments().Allocations(d.ID, (&api.QueryOptions{}).WithContext(ctx))
	if aerr != nil {
		return err
	}
	for _, a := range allocs {
		if a.DeploymentStatus != nil && a.DeploymentStatus.Healthy != nil && *a.DeploymentStatus.Healthy {
			continue
		}
		state := a.TaskStates[nomad.TaskName]
		if state == nil || len(state.Events) == 0 {
			continue
		}
		var said []string
		for _, e := range state.Events[max(0, len(state.Events)-4):] {
			said = append(said, e.DisplayMessage)
		}
		err = fmt.Errorf("%s: %w", a.NodeName, err)
		err = hint.Wrap(err, "what happened on %s:\n    %s", a.NodeName, strings.Join(said, "\n    "))
		if lines := j.tail(ctx, a.ID); lines != "" {
			err = hint.Wrap(err, "its last lines:\n    %s", lines)
		}
		return err
	}
	if why := j.noRoom(ctx, c.Service); why != "" {
		err = fmt.Errorf("%w: no node fits: %s", err, why)
	}
	return err
}

// noRoom says why an instance has no node, "" where all have one.
func (j *Jobs) noRoom(ctx context.Context, s fleet.ServiceName) string {
	evals, _, err := j.api.Jobs().Evaluations(string(s), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return ""
	}
	for _, e := range evals {
		if why := unplaced(e.FailedTGAllocs); why != nil {
			return strings.Join(why, "; ")
		}
	}
	return ""
}

// tail is the end of what an instance wrote. The server brings it from the node.
func (j *Jobs) tail(ctx context.Context, alloc string) string {
	q := (&api.QueryOptions{Params: map[string]string{
		"task": nomad.TaskName, "type": "stderr", "plain": "true", "origin": "end", "offset": "1000",
	}}).WithContext(ctx)
	body, err := j.api.Raw().Response("/v1/client/fs/logs/"+alloc, q)
	if err != nil {
		return ""
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, 1000))
	if err != nil && len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n    ")
}

// unplaced says in words why instances find no node.
func unplaced(failed map[string]*api.AllocationMetric) []string {
	var out []string
	for _, m := range failed {
		add := func(n int, what string) {
			out = append(out, fmt.Sprintf("on %d of %d nodes %s", n, m.NodesEvaluated, what))
		}
		for what, n := range m.ConstraintFiltered {
			add(n, "it may not run ("+what+")")
		}
		for what, n := range m.DimensionExhausted {
			add(n, "there is not enough "+what)
		}
		if len(out) == 0 && m.NodesEvaluated == 0 {
			out = append(out, "no node is ready")
		}
	}
	slices.Sort(out)
	return out
}

// diffLines are a job's differences, one field a line.
func diffLines(d *api.JobDiff) []string {
	var out []string
	out = append(out, fieldLines("", d.Fields, d.Objects)...)
	for _, g := range d.TaskGroups {
		out = append(out, fieldLines("", g.Fields, g.Objects)...)
		for _, t := range g.Tasks {
			out = append(out, fieldLines("", t.Fields, t.Objects)...)
		}
	}
	return out
}

func fieldLines(in string, fields []*api.FieldDiff, objects []*api.ObjectDiff) []string {
	var out []string
	for _, f := range fields {
		if f.Type == "None" {
			continue
		}
		out = append(out, fmt.Sprintf("%s%s: %q -> %q", in, f.Name, f.Old, f.New))
	}
	for _, o := range objects {
		if o.Type != "None" {
			out = append(out, fieldLines(in+o.Name+".", o.Fields, o.Objects)...)
		}
	}
	return out
}

// Refused says whether Nomad answered, and said no.
func Refused(err error) bool {
	var status api.UnexpectedResponseError
	return errors.As(err, &status) && status.StatusCode() >= http.StatusBadRequest
}
