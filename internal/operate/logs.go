package operate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/deploy/ssh"
	"github.com/moggyfleet/moggy/internal/fleet"
)

// Runner runs a command on a node as root: package ssh's Client.
type Runner interface {
	Run(ctx context.Context, node fleet.NodeName, cmd ssh.Command) error
}

// Logs says which lines are wanted.
type Logs struct {
	Last   int           // so many of each node
	Since  time.Duration // and none older; 0: whatever their age
	Follow bool          // and those to come, until the context ends
}

// again is the pause before a node is asked anew whose connection was lost.
const again = 2 * time.Second

// Read hands out the lines of all of a subject's nodes: those there are in the
// order of their times, those to come as they come. The error joins those of the
// nodes that could not be asked; the lines of the others are handed out all the
// same. With Follow, show is called from one goroutine at a time, and lost tells
// of a node whose connection is gone and is sought again.
func (l Logs) Read(ctx context.Context, run Runner, s Subject, show func(Line) error, lost func(fleet.NodeName, error)) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var past []Line
	errs := make([]error, len(s.Nodes))
	ends := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		wait.Go(func() {
			errs[i] = read(ctx, run, n, l.command(s, "", false), false, func(line Line) error {
				mu.Lock()
				defer mu.Unlock()
				past, ends[i] = append(past, line), line.cursor
				return nil
			})
		})
	}
	wait.Wait()
	for _, line := range merged(past) {
		if err := show(line); err != nil {
			return err
		}
	}
	if !l.Follow {
		return errors.Join(errs...)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for i, n := range s.Nodes {
		wait.Go(func() {
			stop(l.follow(ctx, run, s, n, ends[i], func(line Line) error {
				mu.Lock()
				defer mu.Unlock()
				return show(line)
			}, lost))
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// follow stays with one node until the context ends or a line cannot be shown.
func (l Logs) follow(ctx context.Context, run Runner, s Subject, n fleet.NodeName, cursor string, show func(Line) error, lost func(fleet.NodeName, error)) error {
	for {
		var shown error
		err := read(ctx, run, n, l.command(s, cursor, true), true, func(line Line) error {
			cursor = line.cursor
			shown = show(line)
			return shown
		})
		if shown != nil || ctx.Err() != nil {
			return shown
		}
		lost(n, err)
		t := time.NewTimer(again)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// watched ends a command when its standard input does: when the operator's ssh is
// gone, however it went. What a shell runs in the background has an empty standard
// input, so it is handed on by another number.
const watched = `exec 3<&0; "$@" 3<&- & p=$!; (cat <&3 >/dev/null; kill "$p" 2>/dev/null) & c=$!; wait "$p"; r=$?; kill "$c" 2>/dev/null; exit $r`

// command asks a node's journal: for what there is, or, after a cursor or from
// now on, for what is to come.
func (l Logs) command(s Subject, cursor string, follow bool) []string {
	out := []string{"journalctl", "--no-pager", "--quiet", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT"}
	for _, u := range s.Units {
		out = append(out, "--unit="+u)
	}
	switch {
	case cursor != "":
		out = append(out, "--follow", "--lines=all", "--after-cursor="+cursor)
	case follow:
		out = append(out, "--follow", "--lines=0")
	default:
		out = append(out, fmt.Sprintf("--lines=%d", l.Last))
		if l.Since > 0 {
			out = append(out, fmt.Sprintf("--since=-%ds", int(l.Since.Seconds())))
		}
	}
	return out
}

// read runs one command on one node and hands out its lines.
func read(ctx context.Context, run Runner, n fleet.NodeName, command []string, follow bool, show func(Line) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out, w := io.Pipe()
	// Nothing is ever written to it: it ends with us. It is a file, so that nobody
	// waits for it when the command ended by itself.
	in, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	defer hold.Close()
	cmd := ssh.Command{Args: command, Stdout: w}
	if follow {
		cmd.Args, cmd.Stdin = append([]string{"sh", "-c", watched, "sh"}, command...), in
	}
	done := make(chan error, 1)
	go func() {
		err := run.Run(ctx, n, cmd)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)
	for err == nil && lines.Scan() {
		var line Line
		if line, err = parse(n, lines.Bytes()); err == nil {
			err = show(line)
		}
	}
	if err == nil {
		err = lines.Err()
	}
	stop()
	out.CloseWithError(io.ErrClosedPipe)
	if ran := <-done; err == nil {
		err = ran
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n, err)
	}
	return nil
}

// maxLine bounds a line of JSON, in bytes: journald's own bound of a line is
// 48 KiB (journald.conf(5), LineMax=), written at its longest as numbers.
const maxLine = 1 << 20
