package deploy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/engine/agent"
	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Runner runs a command on a node as root: package ssh, or a test's own.
type Runner interface {
	Run(ctx context.Context, node fleet.NodeName, cmd ssh.Command) error
}

// target is one node as `moggy node` on it answers. It is the seam between a
// rollout and a machine: stage, activate, confirm, go back.
type target struct {
	run  Runner
	node fleet.NodeName
	by   string // who is at work, for the node's lock
	own  bool   // the moggy that we brought answers, not that of the generation in force
}

// whichMoggy runs the moggy of the generation in force, or the one that first
// contact brought.
const (
	whichMoggy = `for m in ` + agent.BinaryPath + ` ` + firstDir + `/moggy` + elseNone
	ownMoggy   = `for m in ` + firstDir + `/moggy ` + agent.BinaryPath + elseNone
	elseNone   = `; do [ -x "$m" ] && exec "$m" "$@"; done
echo "moggy: error: there is no moggy on this machine: after moggy leave, or when it was installed anew, moggy forget NODE" >&2; exit 127`
)

func (t target) command(args ...string) []string {
	which, speak := whichMoggy, protocol.Version
	if t.own {
		which = ownMoggy
	}
	if args[0] == "observe" || args[0] == "invite" {
		speak = protocol.Oldest // both are as they were, and asked of nodes that we have brought nothing to
	}
	head := []string{"sh", "-c", which, "moggy", "node", "--protocol", strconv.Itoa(speak), "--by", t.by}
	return append(head, args...)
}

func (t target) output(ctx context.Context, fresh bool, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := t.run.Run(ctx, t.node, ssh.Command{Args: t.command(args...), Stdin: stdin, Stdout: &out, Fresh: fresh})
	return out.Bytes(), said(err)
}

// said turns what moggy wrote to stderr on the node back into an error with
// its hints.
func said(err error) error {
	var exit *ssh.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	text, hints := "", []string{}
	for line := range strings.Lines(exit.Stderr) {
		line = strings.TrimSpace(line)
		if e, ok := strings.CutPrefix(line, "moggy: error:"); ok {
			text = strings.TrimSpace(e)
		} else if h, ok := strings.CutPrefix(line, "moggy: hint:"); ok {
			hints = append(hints, strings.TrimSpace(h))
		} else if text == "" && line != "" {
			text = line
		}
	}
	if text == "" {
		return err
	}
	return &nodeError{hinted(text, hints), exit.Code}
}

// hinted is an error of that text with the hints it came with.
func hinted(text string, hints []string) error {
	err := errors.New(text)
	for _, h := range hints {
		err = hint.Wrap(err, "%s", h)
	}
	return err
}

// nodeError is what the node itself said: the connection was good, and asking
// again would give the same answer.
type nodeError struct {
	error
	code int // that its moggy ended with
}

func (e *nodeError) Unwrap() error { return e.error }

func ask[T any](ctx context.Context, t target, stdin io.Reader, args ...string) (T, error) {
	out, err := t.output(ctx, false, stdin, args...)
	if err != nil {
		var none T
		return none, err
	}
	return protocol.Decode[T](out)
}

func (t target) init(ctx context.Context) (protocol.Init, error) {
	return ask[protocol.Init](ctx, t, nil, "init")
}

// observe asks what the node is; paths are managed files whose content is
// wanted.
func (t target) observe(ctx context.Context, paths ...string) (*fleet.Observed, error) {
	args := []string{"observe"}
	for _, p := range paths {
		args = append(args, "--content", p)
	}
	out, err := t.output(ctx, false, nil, args...)
	if err != nil {
		return nil, err
	}
	var o fleet.Observed
	if err := json.Unmarshal(out, &o); err != nil {
		return nil, fmt.Errorf("answer of moggy node observe: %w", err)
	}
	if o.Version > fleet.ObservedVersion {
		return nil, hint.New("the node runs a newer moggy", "upgrade yours; it runs %s", o.Moggy)
	}
	return &o, nil
}

// stage brings a generation's manifest and the content the node lacks.
func (t target) stage(ctx context.Context, m fleet.Manifest, open func(fleet.Digest) (io.ReadCloser, int64, error), tell func(string)) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	missing, err := ask[protocol.Missing](ctx, t, bytes.NewReader(doc), "missing")
	if err != nil {
		return err
	}
	blobs, total, err := measure(missing.Digests, open)
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("sending %d files, %s", len(blobs), size(total)))
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(protocol.WriteStream(w, m, blobs, func(d fleet.Digest) (io.ReadCloser, error) {
			rc, _, err := open(d)
			return rc, err
		}))
	}()
	_, err = ask[protocol.Staged](ctx, t, r, "stage")
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	return err
}

func measure(digests []fleet.Digest, open func(fleet.Digest) (io.ReadCloser, int64, error)) ([]protocol.Blob, int64, error) {
	var blobs []protocol.Blob
	var total int64
	for _, d := range digests {
		rc, n, err := open(d)
		if err != nil {
			return nil, 0, err
		}
		rc.Close()
		blobs = append(blobs, protocol.Blob{Digest: d, Size: n})
		total += n
	}
	return blobs, total, nil
}

func (t target) packages(ctx context.Context, names []string) (protocol.Packages, error) {
	return ask[protocol.Packages](ctx, t, nil, append([]string{"packages"}, names...)...)
}

func (t target) pull(ctx context.Context, image string) error {
	_, err := ask[protocol.Done](ctx, t, nil, "pull", image)
	return err
}

// follow runs an activation and hands on its events until it ends. An error
// that is no *nodeError means that the connection was lost: the activation
// goes on without us.
func (t target) follow(ctx context.Context, tell func(string), args ...string) (protocol.Outcome, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := t.run.Run(ctx, t.node, ssh.Command{Args: t.command(args...), Stdout: w})
		w.CloseWithError(io.EOF)
		done <- err
	}()
	var end *protocol.Outcome
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		e, err := protocol.Decode[protocol.Event](lines.Bytes())
		if err != nil {
			continue
		}
		if e.End != nil {
			end = e.End
		} else if e.Step != "" {
			tell(strings.TrimSpace(e.Step + " " + e.Text))
		}
	}
	err := <-done
	if end == nil {
		if err = said(err); err == nil {
			err = errNoOutcome
		}
		return protocol.Outcome{}, err
	}
	if end.Error != "" {
		return *end, &nodeError{hinted(end.Error, end.Hints), 1}
	}
	return *end, nil
}

var errNoOutcome = errors.New("the node did not say how it ended")

// confirm keeps the generation, over a connection made for the purpose: what
// an operator can still do after the change, not what was open before it.
func (t target) confirm(ctx context.Context, generation int) error {
	out, err := t.output(ctx, true, nil, "confirm", strconv.Itoa(generation))
	if err != nil {
		return err
	}
	_, err = protocol.Decode[protocol.Standing](out)
	return err
}

func (t target) nextKey(ctx context.Context, current, wanted fleet.Key) (fleet.Key, error) {
	args := []string{"next-key", "--current", current.String()}
	if !wanted.IsZero() {
		args = append(args, "--wanted", wanted.String())
	}
	made, err := ask[protocol.NextKey](ctx, t, nil, args...)
	return made.Key, err
}

func (t target) invite(ctx context.Context, i fleet.Invitation) error {
	doc, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = ask[protocol.Done](ctx, t, bytes.NewReader(doc), "invite")
	return err
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
