package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/doctor"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// probeTimeout bounds one probe, examineTimeout one node's look at itself.
const (
	probeTimeout   = 6 * time.Second
	examineTimeout = 10 * time.Second
)

// maxProbes is how many probes run at once: each may be an ssh, which costs
// this machine some 20 ms of computing and 10 MB.
const maxProbes = 32

// Doctor looks for what is wrong between an operator and a fleet. It changes
// nothing. Each Run takes a Doctor of its own.
type Doctor struct {
	Fleet    *fleet.Fleet
	Lock     *fleet.Lock
	SSH      *ssh.Client
	Moggy    string // the operator's version
	By       string
	Progress Progress
	Now      func() time.Time
	// Broken are the probes of the operator's own machine that have failed
	// before a Doctor could be made: the files, what ssh is told.
	Broken map[doctor.Name]doctor.Result

	mu       sync.Mutex // guards what follows
	round    *doctor.Round
	facts    doctor.Fleet
	routes   map[fleet.NodeName]ssh.Route // the way that answers
	sessions map[fleet.NodeName]doctor.Attempt
}

// Run probes the named nodes, or all where none is named.
func (d *Doctor) Run(ctx context.Context, names []fleet.NodeName) (doctor.Report, error) {
	begun := d.Now()
	d.round = doctor.NewRound(doctor.Graph(d.Fleet, d.Lock, names))
	d.facts = doctor.Fleet{
		Fleet: d.Fleet, Lock: d.Lock, Moggy: d.Moggy,
		Answers: make(map[fleet.NodeName]doctor.Answer), Results: d.round.Result,
	}
	d.routes = make(map[fleet.NodeName]ssh.Route)
	d.sessions = make(map[fleet.NodeName]doctor.Attempt)
	type ended struct {
		id  doctor.ID
		res doctor.Result
	}
	over := make(chan ended)
	room := make(chan struct{}, maxProbes)
	running := 0
	for {
		d.mu.Lock()
		begin := d.round.Begin()
		d.mu.Unlock()
		for _, p := range begin {
			running++
			d.step(p)
			go func() {
				room <- struct{}{}
				started := d.Now()
				res := d.probe(ctx, p)
				res.Took = d.Now().Sub(started)
				<-room
				over <- ended{p.ID, res}
			}()
		}
		if running == 0 {
			break
		}
		e := <-over
		running--
		d.mu.Lock()
		d.round.Finish(e.id, e.res)
		d.mu.Unlock()
		d.tell(e.id.Node)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var asked []fleet.NodeName
	for _, n := range d.Fleet.Nodes {
		if len(names) == 0 || slices.Contains(names, n.Name) {
			asked = append(asked, n.Name)
			d.done(n.Name)
		}
	}
	return d.facts.Conclude(asked, d.round.Outcomes(), d.Now().Sub(begun)), ctx.Err()
}

func (d *Doctor) step(p doctor.Probe) {
	if p.ID.Node != "" {
		d.Progress.Step(string(p.ID.Node), "looking: "+string(p.ID.Name))
	}
}

// tell shows a node of which all probes are over.
func (d *Doctor) tell(n fleet.NodeName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n != "" && d.round.Open(n) == 0 {
		d.done(n)
	}
}

func (d *Doctor) done(n fleet.NodeName) {
	passed := 0
	for _, o := range d.round.Outcomes() {
		if o.Node != n {
			continue
		}
		switch o.Status {
		case doctor.Failed:
			d.Progress.Fail(string(n), fmt.Errorf("%s: %s", o.Name, o.Text))
			return
		case doctor.Skipped:
			d.Progress.Fail(string(n), fmt.Errorf("%s was skipped because of %s", o.Name, o.Because))
			return
		case doctor.Passed, doctor.Warned:
			passed++
		case doctor.Unneeded:
		}
	}
	d.Progress.Done(string(n), fmt.Sprintf("%d probes passed", passed))
}

// probe runs one probe.
func (d *Doctor) probe(ctx context.Context, p doctor.Probe) doctor.Result {
	within := probeTimeout
	if p.ID.Name == doctor.Moggy {
		within = examineTimeout
	}
	ctx, stop := context.WithTimeout(ctx, within)
	defer stop()
	if p.ID.Node == "" {
		return d.own(ctx, p.ID.Name)
	}
	n, _ := d.Fleet.Node(p.ID.Node)
	switch {
	case p.Hub != "":
		return d.via(ctx, n, p.Hub)
	case p.ID.Name == doctor.Resolve:
		return d.resolve(ctx, n)
	case p.ID.Name == doctor.TCP:
		return d.tcp(ctx, n)
	case p.ID.Name == doctor.HostKey:
		return d.meet(ctx, n)
	case p.ID.Name == doctor.Moggy:
		return d.examine(ctx, n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[n.Name]
	switch p.ID.Name {
	case doctor.Member:
		return d.facts.Member(n)
	case doctor.Login:
		return s.Login(n.Name, n.SSH.User, d.round.Result(doctor.ID{Name: doctor.Keys}))
	case doctor.Root:
		return s.Root(n.SSH.User)
	case doctor.Systemd:
		return s.Systemd()
	default:
	}
	return d.facts.Judge(p.ID)
}

// attempt runs the survey over a route.
func (d *Doctor) attempt(ctx context.Context, r ssh.Route) (doctor.Attempt, error) {
	t, err := d.SSH.Try(ctx, r, 4<<10, "sh", "-c", doctor.Survey)
	return doctor.Attempt{Code: t.Code, Stdout: string(t.Stdout), Stderr: t.Stderr, Late: t.Late}, err
}

// via tries the way through a hub. The first that leads to an sshd is the one
// that the other probes take.
func (d *Doctor) via(ctx context.Context, n fleet.Node, hub fleet.NodeName) doctor.Result {
	d.mu.Lock()
	jump, ok := d.routes[hub]
	d.mu.Unlock()
	if !ok || jump.Jump != "" {
		return doctor.Result{Status: doctor.Failed, Text: string(hub) + " itself is reached only through another hub"}
	}
	for _, r := range d.SSH.Ways(n.Name) {
		if r.Hub != hub {
			continue
		}
		r.Jump = jump.Alias
		started := d.Now()
		s, err := d.attempt(ctx, r)
		if err != nil {
			return doctor.Result{Status: doctor.Failed, Text: err.Error()}
		}
		res := s.Through(hub, d.Now().Sub(started).Round(10*time.Millisecond).String())
		if res.Status == doctor.Passed {
			d.mu.Lock()
			defer d.mu.Unlock()
			if _, have := d.routes[n.Name]; !have {
				d.routes[n.Name], d.sessions[n.Name] = r, s
			}
		}
		return res
	}
	return doctor.Result{Status: doctor.Failed, Text: "ssh knows no way through " + string(hub)}
}

// meet talks SSH to a node that answers at an address of its own. Over a hub
// that has been done.
func (d *Doctor) meet(ctx context.Context, n fleet.Node) doctor.Result {
	d.mu.Lock()
	s, have := d.sessions[n.Name]
	r := d.routes[n.Name]
	d.mu.Unlock()
	if !have {
		var err error
		if s, err = d.attempt(ctx, r); err != nil {
			return doctor.Result{Status: doctor.Failed, Text: err.Error()}
		}
		d.mu.Lock()
		d.sessions[n.Name] = s
		d.mu.Unlock()
	}
	return s.HostKey(n.Name)
}

// examine has the node look at itself. A node whose moggy does not know how is
// asked what it does know.
func (d *Doctor) examine(ctx context.Context, n fleet.Node) doctor.Result {
	d.mu.Lock()
	r := d.routes[n.Name]
	d.mu.Unlock()
	a, err := d.answer(ctx, r, "examine", doctor.Parse)
	if err != nil && strings.Contains(err.Error(), "unknown command") {
		a, err = d.answer(ctx, r, "observe", doctor.ParseObserved)
	}
	if err != nil {
		next := "moggy apply brings it"
		if strings.Contains(err.Error(), protocol.ErrNewer.Error()) {
			next = "upgrade your moggy: moggy version"
		}
		return doctor.Result{Status: doctor.Failed, Text: "does not answer: " + err.Error(), Next: next}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts.Answers[n.Name] = a
	return d.facts.Judge(doctor.ID{Node: n.Name, Name: doctor.Moggy})
}

// answer asks in the oldest protocol, which every node speaks.
func (d *Doctor) answer(ctx context.Context, r ssh.Route, ask string, parse func([]byte) (fleet.Examination, error)) (doctor.Answer, error) {
	words := []string{"sh", "-c", whichMoggy, "moggy", "node", "--protocol", fmt.Sprint(protocol.Oldest), "--by", d.By, ask}
	a := doctor.Answer{Sent: d.Now()}
	t, err := d.SSH.Try(ctx, r, doctor.MaxAnswer, words...)
	a.Received = d.Now()
	switch {
	case err != nil:
		return a, err
	case t.Late:
		return a, fmt.Errorf("no answer within %s", examineTimeout)
	case t.Code != 0:
		return a, doctor.Attempt{Code: t.Code, Stderr: t.Stderr}.Trouble()
	}
	a.Examination, err = parse(t.Stdout)
	return a, err
}
