// Package hold makes a line slow: it holds packets that the kernel hands to a
// netfilter queue, and lets each go after a while, in the order they came. It
// says nothing about which packets; a rule does.
package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
)

// backlog is how many packets a queue holds at most; more are lost, as they are
// on a line that is full.
const backlog = 20000

// buffer is the space for the kernel's messages about packets, in bytes.
const buffer = 8 << 20

// Queue is a netfilter queue of a network namespace.
type Queue struct {
	conn *nfqueue.Nfqueue
	num  uint16
}

// Open makes the queue of that number in the caller's network namespace. The
// kernel hands it nothing before Run.
func Open(num uint16) (*Queue, error) {
	conn, err := nfqueue.Open(&nfqueue.Config{
		NfQueue: num, MaxQueueLen: backlog, Copymode: nfqueue.NfQnlCopyMeta,
		Flags: nfqueue.NfQaCfgFlagGSO, // segments that came as one stay one
	})
	if err != nil {
		return nil, fmt.Errorf("netfilter queue %d: %w", num, err)
	}
	_ = conn.Con.SetReadBuffer(buffer) // with the usual size more is lost under load, and nothing else
	if err := conn.SetOption(netlink.NoENOBUFS, true); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Queue{conn, num}, nil
}

// held is a packet until its time comes.
type held struct {
	id  uint32
	due time.Time
}

// Run holds each packet for d until ctx ends, and then lets go of all.
func (q *Queue) Run(ctx context.Context, d time.Duration) error {
	packets := make(chan held, backlog)
	register, stop := context.WithCancel(context.Background())
	defer stop()
	err := q.conn.RegisterWithErrorFunc(register, func(a nfqueue.Attribute) int {
		if a.PacketID != nil {
			select {
			case packets <- held{*a.PacketID, time.Now().Add(d)}:
			default: // not more than the kernel gives
			}
		}
		return 0
	}, func(error) int {
		if register.Err() != nil {
			return 1
		}
		return 0 // one message less; the next may be well
	})
	if err != nil {
		return errors.Join(fmt.Errorf("netfilter queue %d: %w", q.num, err), q.conn.Close())
	}
	q.release(ctx, packets)
	stop()
	return q.conn.Close()
}

// release lets each packet go when it is time, or, once ctx has ended, at once
// those that are still there.
func (q *Queue) release(ctx context.Context, packets <-chan held) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var p held
		select {
		case p = <-packets:
		case <-ctx.Done():
			select {
			case p = <-packets:
			default:
				return
			}
		}
		timer.Reset(time.Until(p.due))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		_ = q.conn.SetVerdict(p.id, nfqueue.NfAccept) // a packet that is gone needs none
	}
}

// Bound says whether somebody listens to the queue in the caller's network
// namespace.
func Bound(num uint16) bool {
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == strconv.Itoa(int(num)) {
			return true
		}
	}
	return false
}
