package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/deploy/node/ledger"
	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/node/store"
	"github.com/moggyfleet/moggy/internal/deploy/node/systemd"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Step is one step of an activation. Each can be taken again at any time, and
// does nothing where its work is done; so an activation that was killed is
// finished by activating again, that generation or any other.
type Step string

// The steps. Up to StepSwitch the generation before is in force, from it on
// the new one.
const (
	StepVerify Step = "verify" // the tree is whole, mended from the store where it is not
	StepRecord Step = "record" // write down what will be ours on this machine
	StepStop   Step = "stop"   // units that the generation has no more
	StepSwitch Step = "switch" // current -> the generation: the point of no return
	StepLink   Step = "link"   // managed paths lead through current
	StepUnlink Step = "unlink" // paths that are managed no more
	StepReload Step = "reload" // systemd reads changed unit files
	StepStart  Step = "start"  // start, restart, reload the units that need it
	StepAwait  Step = "await"  // until every unit of ours runs
	StepCheck  Step = "check"  // until what the generation says of itself holds
	StepSettle Step = "settle" // write down where we stand
)

// Steps are an activation's steps in their order.
func Steps() []Step {
	var out []Step
	for _, s := range (&activation{}).steps() {
		out = append(out, s.name)
	}
	return out
}

type activationStep struct {
	name Step
	do   func(context.Context) error
}

func (a *activation) steps() []activationStep {
	return []activationStep{
		{StepVerify, a.verify},
		{StepRecord, a.record},
		{StepStop, a.stop},
		{StepSwitch, a.switchOver},
		{StepLink, a.link},
		{StepUnlink, a.unlink},
		{StepReload, a.daemonReload},
		{StepStart, a.start},
		{StepAwait, a.awaitUnits},
		{StepCheck, a.check},
		{StepSettle, a.settle},
	}
}

// Target is a generation to put in force.
type Target struct {
	Generation int // 0 takes everything of ours off the machine's paths
	// Digest of its manifest, where the caller insists on the one it staged.
	Digest fleet.Digest
	// Commit is the git commit that the fleet file was at, for the history.
	Commit string
	// Probation says that the generation shall be confirmed, also where it was
	// once before.
	Probation bool
	// Again says that the caller goes on with what it had begun when it was
	// killed.
	Again bool

	// back is set on the way back.
	back *wayBack
}

// activation is one run through the steps.
type activation struct {
	*Held
	report  func(protocol.Event)
	target  fleet.Manifest
	journal journal
	ledger  *ledger.Ledger
	// probation is Target.Probation.
	probation bool
	// boot is set where the machine is about to start its units by itself.
	boot bool
	// until is when units must be active that are being started.
	until time.Time
	// lame are units that did not become what they should, on the way back:
	// nothing better can be done than to put all the rest right.
	lame []error
	// placed and fromPlaced are the placements of the target and of the
	// generation that was in force when this began (journal.From).
	placed, fromPlaced map[string]ledger.Placement
	// fromUnits are the units of ours that may run.
	fromUnits []string
	changed   bool
	kept      string // the directory for what is kept, once it is needed
}

// Activate puts a staged generation in force and waits until its units run.
// With the generation that is in force it puts right what is not as it should
// be. Changed says whether there was anything to do. An error before
// StepSwitch leaves the generation before in force.
func (h *Held) Activate(ctx context.Context, t Target, report func(protocol.Event)) (changed bool, err error) {
	a, err := h.begin(t, report)
	if err != nil {
		return false, err
	}
	err = a.take(ctx, a.steps())
	return a.changed, err
}

// take takes steps, one after the other.
func (a *activation) take(ctx context.Context, steps []activationStep) error {
	g := a.journal.Generation
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("generation %d: stopped before %s: %w", g, s.name, err)
		}
		if err := a.enter(ctx, s.name); err != nil {
			return readOnlyHint(fmt.Errorf("generation %d: %w", g, err))
		}
		err := s.do(ctx)
		if err != nil && a.journal.Back != nil && ctx.Err() == nil &&
			(s.name == StepStop || s.name == StepStart || s.name == StepAwait) {
			a.tell(s.name, err.Error())
			a.lame = append(a.lame, err)
			continue
		}
		if err != nil {
			return readOnlyHint(fmt.Errorf("generation %d: %s: %w", g, s.name, err))
		}
	}
	return errors.Join(a.lame...)
}

// begin reads all that the steps need to know.
func (h *Held) begin(t Target, report func(protocol.Event)) (*activation, error) {
	target, err := h.manifest(t.Generation)
	if err != nil {
		return nil, err
	}
	if got := protocol.DigestOf(target); t.Digest != "" && t.Digest != got {
		return nil, hint.New(fmt.Sprintf("generation %d: another one was staged under this number meanwhile", t.Generation),
			"apply again")
	}
	if err := h.ours(target); t.Generation > 0 && err != nil {
		return nil, err
	}
	if err := h.Reports().Make(); err != nil { // the guard, which this may start, is for boot
		return nil, err
	}
	current, err := h.linked()
	if err != nil {
		return nil, err
	}
	a := &activation{Held: h, report: report, target: target, ledger: h.book(), probation: t.Probation}
	a.journal = journal{
		Version: formatVersion, Generation: t.Generation, Digest: protocol.DigestOf(target),
		From: current, By: h.by, Since: h.now(), Commit: t.Commit, Back: t.back,
	}
	var was journal
	if h.readJSON(journalFile, &was) == nil {
		// As long as none has ended, it is the same beginning.
		a.journal.From, a.journal.Held = was.From, was.Held
		if was.Generation == t.Generation {
			a.journal.Since = was.Since
			a.changed = t.Again
		}
	}
	a.recall(current, a.journal.From)
	return a, nil
}

// recall learns what generations that were in force before may have left. One
// that cannot be read is made up for by the ledger.
func (a *activation) recall(current, from int) {
	for _, g := range []int{current, from} {
		m, err := a.manifest(g)
		if err != nil {
			continue
		}
		for _, u := range m.Units {
			if !u.Foreign {
				a.fromUnits = append(a.fromUnits, u.Name)
			}
		}
	}
	for name, p := range a.ledger.Units {
		if !p.Foreign {
			a.fromUnits = append(a.fromUnits, name)
		}
	}
	slices.Sort(a.fromUnits)
	a.fromUnits = slices.Compact(a.fromUnits)
	m, err := a.manifest(from)
	if err == nil {
		a.fromPlaced, err = a.placements(m)
	}
	if err != nil {
		a.fromPlaced = maps.Clone(a.ledger.Placed)
	}
}

// enter writes down that a step begins, and reports it.
func (a *activation) enter(ctx context.Context, s Step) error {
	a.journal.Step = s
	if err := a.writeJSON(journalFile, a.journal); err != nil {
		return err
	}
	a.tell(s, "")
	if a.boot {
		return nil
	}
	at := string(s)
	if a.journal.Back != nil {
		at = "back " + at
	}
	return a.Reports().Pause(ctx, at, func(text string) { a.tell(s, text) })
}

func (a *activation) tell(s Step, text string) {
	a.report(protocol.Event{Hello: protocol.Hello{Protocol: protocol.Version}, At: a.now(), Step: string(s), Text: text})
}

// did reports something that changed.
func (a *activation) did(s Step, text string) {
	if text != "" {
		a.changed = true
		a.tell(s, text)
	}
}

// replaced is where a path's content is kept in this activation, in a
// directory that no other one has used.
func (a *activation) replaced(path string) string {
	if a.kept == "" {
		stamp := replacedDir + "/" + a.now().UTC().Format("20060102T150405Z")
		a.kept = stamp
		for i := 2; ; i++ {
			if _, err := os.Lstat(a.disk.Real(a.kept)); err != nil {
				break
			}
			a.kept = stamp + "-" + strconv.Itoa(i)
		}
	}
	return filepath.Join(a.kept, path)
}

func (a *activation) verify(ctx context.Context) error {
	if a.journal.Back == nil {
		a.before(ctx)
	}
	if err := a.checkParents(a.target); err != nil {
		return err
	}
	v := a.store.Cache(false)
	if err := a.spoilDrifted(v); err != nil {
		return err
	}
	for _, f := range a.target.Files {
		if err := a.mend(v, f); err != nil {
			return err
		}
	}
	if err := v.Save(); err != nil {
		return err
	}
	var err error
	if a.placed, err = a.placements(a.target); err != nil {
		return err
	}
	return a.writable()
}

// writable says whether the directories that must change can be changed, while
// there is still nothing to take back.
func (a *activation) writable() error {
	dirs := make(map[string]bool)
	for path, p := range a.placed {
		if a.look(path, p) != asPlaced {
			dirs[a.disk.Existing(filepath.Dir(path))] = true
		}
	}
	for path := range a.ledger.Placed {
		if _, stays := a.placed[path]; !stays {
			dirs[a.disk.Existing(filepath.Dir(path))] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := unix.Access(a.disk.Real(dir), unix.W_OK); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// spoilDrifted makes sure that units running with a file changed by hand are
// restarted, or reloaded, once the file is right again.
func (a *activation) spoilDrifted(v *store.Cache) error {
	current, err := a.linked()
	if err != nil {
		return err
	}
	m, err := a.manifest(current)
	if err != nil {
		return nil //nolint:nilerr // its units are restarted, their prints being of files nobody knows
	}
	spoilt := false
	for _, d := range a.drift(v, m) {
		if d.Kind != fleet.DriftMode && a.ledger.Spoil(a.target, d.Path) {
			spoilt = true
		}
	}
	if !spoilt {
		return nil
	}
	return a.saveLedger(a.ledger)
}

// mend puts a file of the target's tree right.
func (a *activation) mend(v *store.Cache, f fleet.ManifestFile) error {
	path := treePath(a.target.Generation, f.Path)
	got, err := v.Digest(path)
	if err == nil && got == f.Digest {
		if a.disk.RightMode(path, f.Mode) {
			return nil
		}
		a.did(StepVerify, "mode of "+f.Path+" set right")
		return a.disk.SetMode(path, f.Mode)
	}
	have, serr := a.store.List()
	if serr != nil {
		return serr
	}
	if serr := a.store.Ensure(v, have, f); serr != nil {
		return hint.Wrap(fmt.Errorf("%s: damaged, and %w", f.Path, serr), "moggy apply sends it again")
	}
	if err == nil {
		to := a.replaced(f.Path)
		if err := a.disk.Keep(path, to); err != nil {
			return err
		}
		a.did(StepVerify, fmt.Sprintf("restored %s; what was there is %s", f.Path, to))
	} else {
		a.did(StepVerify, "restored "+f.Path)
	}
	return a.treeFile(f, path)
}

// record writes down what will be on the machine, and that nobody knows any
// more with which files the units run that will be touched: after a kill, or a
// reboot, they may run with the old ones or the new.
func (a *activation) record(context.Context) error {
	if err := a.keepGood(); err != nil {
		return err
	}
	grown := a.expect(a.ledger, a.placed)
	if a.ledger.Doubt(a.target) || grown {
		return a.saveLedger(a.ledger)
	}
	return nil
}

// hurry is how long a way back waits for units that it has no use for.
const hurry = 5 * time.Second

func (a *activation) stop(ctx context.Context) error {
	gone, err := a.gone(ctx)
	if err != nil || len(gone) == 0 {
		return err
	}
	patience := a.await
	if a.journal.Back != nil {
		patience = min(patience, hurry)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.systemd.Do(ctx, systemd.Stop, gone...); err != nil {
		return err
	}
	a.did(StepStop, "stopped "+strings.Join(gone, ", "))
	return nil
}

// gone are units that may run and that the target has no more.
func (a *activation) gone(ctx context.Context) ([]string, error) {
	var gone []string
	for _, name := range a.fromUnits {
		if !slices.ContainsFunc(a.target.Units, func(u fleet.Unit) bool { return u.Name == name && !u.Foreign }) {
			gone = append(gone, name)
		}
	}
	states, err := a.systemd.Show(ctx, gone...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(gone, func(name string) bool {
		return slices.ContainsFunc(states, func(s systemd.Status) bool {
			return s.Name == name && (s.Active == "inactive" || s.Active == "failed")
		})
	}), nil
}

func (a *activation) switchOver(context.Context) error {
	current, err := a.linked()
	if err != nil || current == a.target.Generation {
		return err
	}
	a.changed = true
	if a.target.Generation == 0 {
		return a.disk.Remove(currentLink)
	}
	return a.disk.Symlink(linkTo(a.target.Generation), currentLink)
}

func (a *activation) link(context.Context) error {
	for _, path := range slices.Sorted(maps.Keys(a.placed)) {
		if a.ledger.Loaded != "" && strings.HasPrefix(path, protocol.SystemdDir+"/") && a.look(path, a.placed[path]) != asPlaced {
			a.ledger.Loaded = "" // what systemd read there may have been anything
			if err := a.saveLedger(a.ledger); err != nil {
				return err
			}
		}
		said, err := a.place(path, a.placed[path])
		if err != nil {
			return err
		}
		a.did(StepLink, said)
	}
	return nil
}

func (a *activation) unlink(context.Context) error {
	shrunk := false
	for _, path := range slices.Sorted(maps.Keys(a.ledger.Placed)) {
		if _, stays := a.placed[path]; stays {
			continue
		}
		said, err := a.unplace(path, a.ledger.Placed[path])
		if err != nil {
			return err
		}
		a.did(StepUnlink, said)
		delete(a.ledger.Placed, path)
		shrunk = true
	}
	if !shrunk {
		return nil
	}
	if err := a.dropDirs(a.ledger); err != nil {
		return err
	}
	return a.saveLedger(a.ledger)
}

func (a *activation) settle(context.Context) error {
	var was state
	if err := a.readJSON(stateFile, &was); err != nil {
		was = state{}
	}
	a.ledger.KeepUnits(a.target)
	if err := a.saveLedger(a.ledger); err != nil {
		return err
	}
	g := a.target.Generation
	if was.Current != g || was.Version == 0 {
		now := a.moved(was, g)
		now.At, now.Left = a.now().UTC().Truncate(time.Second), a.journal.Back
		now.Fleet, now.Node = a.identity()
		if g > 0 {
			now.Fleet, now.Node = a.target.Fleet, a.target.Node
		}
		if err := a.writeJSON(stateFile, now); err != nil {
			return err
		}
	}
	if !a.probation && a.journal.Back == nil && a.marked(g) {
		if err := a.settleOn(g, ""); err != nil { // an operator's word, as good as a confirmation
			return err
		}
	}
	a.turn()
	return a.disk.Remove(journalFile)
}

// turn writes down what this activation came to.
func (a *activation) turn() {
	j := a.journal
	t := fleet.Turn{Kind: fleet.TurnActivated, Generation: j.Generation, From: j.From, By: j.By, Commit: j.Commit}
	switch {
	case j.Back != nil && j.Back.Never:
		t.Kind, t.Generation, t.From, t.Why = fleet.TurnFailed, j.Back.From, j.Generation, j.Back.Why
	case j.Back != nil:
		t.Kind, t.From, t.Why = fleet.TurnWentBack, j.Back.From, j.Back.Why
	case j.From == j.Generation && a.changed:
		t.Kind = fleet.TurnRestored
	case j.From == j.Generation:
		return
	}
	past, err := a.History()
	if err == nil && len(past) > 0 {
		last := past[len(past)-1]
		if last.Kind == t.Kind && last.Generation == t.Generation && last.From == t.From &&
			!last.At.Before(j.Since.UTC().Truncate(time.Second)) {
			return // killed since, and here again
		}
	}
	a.remember(t)
}
