package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moggyfleet/moggy/internal/mesh/path"
)

// series are the rounds of one figure.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	t := slices.Sorted(slices.Values(s))
	return (t[(len(t)-1)/2] + t[len(t)/2]) / 2
}

// memory of a process, in MB of 1,000,000 bytes.
type memory struct {
	RSS  float64 `json:"rss"`
	Peak float64 `json:"peak"`
}

// results are all figures of a run. Throughput is in Mbit/s, time in ms, memory
// in MB, CPU in percent of one core.
type results struct {
	Rounds int `json:"rounds"`
	Peers  int `json:"peers"`

	Plain   series `json:"plain_mbit"` // at the mesh's MTU
	Plain14 series `json:"plain_1420_mbit"`
	Direct  series `json:"direct_mbit"`
	Relayed series `json:"relayed_mbit"`

	PlainRTT   series `json:"plain_rtt_ms"`
	DirectRTT  series `json:"direct_rtt_ms"`
	RelayedRTT series `json:"relayed_rtt_ms"`

	Idle      map[string]memory  `json:"idle_mb"`   // six nodes, nothing sent yet
	Loaded    map[string]memory  `json:"loaded_mb"` // after the transfers
	PlainIdle memory             `json:"plain_idle_mb"`
	PlainLoad memory             `json:"plain_loaded_mb"`
	Large     map[string]memory  `json:"large_mb"` // one node and its hubs
	CPU       map[string]float64 `json:"idle_cpu_percent"`
	LargeCPU  float64            `json:"large_idle_cpu_percent"`
}

// measure makes the world, takes all figures and says on log what it does.
func measure(ctx context.Context, o options, log io.Writer) (*results, error) {
	w, err := newWorld()
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return nil, err
	}
	r := &results{Rounds: o.rounds, Peers: o.peers}
	fmt.Fprintln(log, "a fleet of six")
	fleet, err := w.fleet(ctx, o.moggy)
	if err != nil {
		return nil, err
	}
	if err := r.idle(ctx, o, fleet, log); err != nil {
		return nil, err
	}
	if err := r.load(ctx, o, w, fleet, log); err != nil {
		return nil, err
	}
	if o.peers > 0 {
		fmt.Fprintln(log, o.peers, "configured peers")
		all, err := w.large(ctx, o.moggy, o.peers)
		if err != nil {
			return nil, err
		}
		if err := pause(ctx, 2*time.Second); err != nil { // it just started
			return nil, err
		}
		cpu, err := cpuOver(ctx, o.idle, all)
		if err != nil {
			return nil, err
		}
		r.LargeCPU = most(cpu)
		if r.Large, err = memories(all); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// idle measures the fleet while nobody sends anything.
func (r *results) idle(ctx context.Context, o options, fleet map[string]*node, log io.Writer) error {
	if o.idle > 0 {
		fmt.Fprintln(log, "idle, for", o.idle)
		// Those who just talked are looked after for a while.
		if err := pause(ctx, path.Idle+path.Background+5*time.Second); err != nil {
			return err
		}
	}
	var err error
	if r.CPU, err = cpuOver(ctx, o.idle, fleet); err != nil {
		return err
	}
	r.Idle, err = memories(fleet)
	return err
}

// turn is one way from a machine to another, and where its figures go.
type turn struct {
	from, to, addr string
	mbit, rtt      *series
}

// load measures throughput and latency. Everybody takes their turn in each
// round, and every second round goes the other way.
func (r *results) load(ctx context.Context, o options, w *world, fleet map[string]*node, log io.Writer) error {
	plain, err := w.plain(ctx, o.wireguard, meshMTU)
	if err != nil {
		return err
	}
	turns := []turn{
		{"a", "b", plain.to, &r.Plain, &r.PlainRTT},
		{"a", "b", fleet["b"].mesh.String(), &r.Direct, &r.DirectRTT},
		{"c", "d", fleet["d"].mesh.String(), &r.Relayed, &r.RelayedRTT},
	}
	if o.wide {
		wide, err := w.plain(ctx, o.wireguard, plainMTU)
		if err != nil {
			return err
		}
		turns = append(turns, turn{"a", "b", wide.to, &r.Plain14, nil})
	}
	for _, t := range turns {
		// The first packets make the session.
		if _, err := w.ping(ctx, t.from, t.addr, 20); err != nil {
			return err
		}
	}
	if r.PlainIdle, err = memoryOf(plain.pids[0]); err != nil {
		return err
	}
	for round := range o.rounds {
		if round > 0 && o.enough != nil && o.enough(r) {
			break
		}
		fmt.Fprintln(log, "round", round+1, "of", o.rounds)
		for _, t := range turns {
			if err := w.take(ctx, t, o); err != nil {
				return err
			}
		}
		slices.Reverse(turns)
	}
	if r.PlainLoad, err = memoryOf(plain.pids[0]); err != nil {
		return err
	}
	r.Loaded, err = memories(fleet)
	return err
}

// take takes the figures of one turn.
func (w *world) take(ctx context.Context, t turn, o options) error {
	if t.rtt != nil {
		ms, err := w.ping(ctx, t.from, t.addr, o.pings)
		if err != nil {
			return err
		}
		*t.rtt = append(*t.rtt, ms)
	}
	mbit, err := w.iperf(ctx, t.from, t.to, t.addr, o)
	if err != nil {
		return err
	}
	*t.mbit = append(*t.mbit, mbit)
	return nil
}

// iperf is the throughput of one TCP stream, in Mbit/s as received.
func (w *world) iperf(ctx context.Context, from, to, addr string, o options) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, o.transfer+o.omit+20*time.Second)
	defer cancel()
	server := w.command(ctx, to, "iperf3", "-s", "-1", "--forceflush", "-B", addr)
	out, err := server.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = server.Wait() }()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "listening") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	text, err := w.command(ctx, from, "iperf3", "-c", addr, "-J", "-O", strconv.Itoa(int(o.omit.Seconds())), "-t", strconv.Itoa(int(o.transfer.Seconds()))).Output()
	var report struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jerr := json.Unmarshal(text, &report); jerr != nil || err != nil || report.Error != "" {
		cancel()
		return 0, fmt.Errorf("iperf3 from %s to %s: %s %w", from, addr, report.Error, err)
	}
	return report.End.Received.Bits / 1e6, nil
}

// ping is the median round trip of n echo requests, in ms.
func (w *world) ping(ctx context.Context, from, addr string, n int) (float64, error) {
	out, err := w.command(ctx, from, "ping", "-n", "-c", strconv.Itoa(n), "-i", "0.005", addr).Output()
	if err != nil {
		return 0, fmt.Errorf("ping from %s to %s: %w", from, addr, err)
	}
	var all series
	for line := range bytes.Lines(out) {
		if _, rest, ok := strings.Cut(string(line), "time="); ok {
			ms, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return 0, fmt.Errorf("ping from %s to %s: %w", from, addr, err)
			}
			all = append(all, ms)
		}
	}
	return all.median(), nil
}

func memories(fleet map[string]*node) (map[string]memory, error) {
	all := make(map[string]memory)
	for name, n := range fleet {
		m, err := memoryOf(n.pid)
		if err != nil {
			return nil, err
		}
		all[name] = m
	}
	return all, nil
}

func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kB, _ := strconv.ParseFloat(f[1], 64) // not a number: not a line of ours
		switch f[0] {
		case "VmRSS:":
			m.RSS = kB * 1024 / 1e6
		case "VmHWM:":
			m.Peak = kB * 1024 / 1e6
		}
	}
	return m, nil
}

// tick is the kernel's unit of CPU time for user space (USER_HZ).
const tick = 10 * time.Millisecond

// cpuOver is the CPU time that each takes while d passes, in percent of a core.
func cpuOver(ctx context.Context, d time.Duration, fleet map[string]*node) (map[string]float64, error) {
	if d == 0 {
		return nil, nil
	}
	before := make(map[string]time.Duration)
	for name, n := range fleet {
		t, err := cpuOf(n.pid)
		if err != nil {
			return nil, err
		}
		before[name] = t
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	percent := make(map[string]float64)
	for name, n := range fleet {
		t, err := cpuOf(n.pid)
		if err != nil {
			return nil, err
		}
		percent[name] = 100 * float64(t-before[name]) / float64(d)
	}
	return percent, nil
}

// cpuOf is utime and stime of proc(5)'s stat.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field may hold spaces; it ends with the last parenthesis.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, field := range f[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
