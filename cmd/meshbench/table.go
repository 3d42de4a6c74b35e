package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// figure is one line of the table.
type figure struct {
	what  string
	value string
	bar   string
	met   bool // false where bar is "" means nothing
}

// The bars, of issue and design.
const (
	relayedShare = 0.9 // of direct
	hubTime      = 0.2 // ms, one way
	idleMB       = 32  // six nodes
	loadedMB     = 128 // after a loaded run
	largeMB      = 64  // 1,000 configured peers
	idlePercent  = 0.3 // of a core
)

// hubOneWay is what a hub adds on the way of a packet, in ms.
func (r *results) hubOneWay() float64 { return (r.RelayedRTT.median() - r.DirectRTT.median()) / 2 }

// directAdded is what a direct path adds to plain wireguard-go's round trip, and
// how much that differs between its own rounds, in ms.
func (r *results) directAdded() (added, noise float64) {
	return r.DirectRTT.median() - r.PlainRTT.median(), slices.Max(r.PlainRTT) - slices.Min(r.PlainRTT)
}

// most is the largest figure of all nodes.
func most(all map[string]float64) float64 {
	var m float64
	for v := range maps.Values(all) {
		m = max(m, v)
	}
	return m
}

func mostMemory(all map[string]memory) (rss, peak float64) {
	for m := range maps.Values(all) {
		rss, peak = max(rss, m.RSS), max(peak, m.Peak)
	}
	return rss, peak
}

func (r *results) figures() []figure {
	plain, direct, relayed := r.Plain.median(), r.Direct.median(), r.Relayed.median()
	added, noise := r.directAdded()
	idle, _ := mostMemory(r.Idle)
	loaded, peak := mostMemory(r.Loaded)
	var all []figure
	if len(r.Plain14) > 0 {
		all = append(all, figure{what: "plain wireguard-go, TCP, MTU 1420", value: fmt.Sprintf("%.0f Mbit/s", r.Plain14.median())})
	}
	all = append(all, []figure{
		{what: "plain wireguard-go, TCP, MTU 1280", value: fmt.Sprintf("%.0f Mbit/s", plain)},
		{"direct, TCP", fmt.Sprintf("%.0f Mbit/s (%.2f of plain)", direct, direct/plain), "1.00 of plain", direct >= plain},
		{"relayed, TCP", fmt.Sprintf("%.0f Mbit/s (%.2f of direct)", relayed, relayed/direct), fmt.Sprintf("%.2f of direct", relayedShare), relayed >= relayedShare*direct},
		{what: "plain wireguard-go, round trip", value: fmt.Sprintf("%.3f ms", r.PlainRTT.median())},
		{"direct, added to the round trip", fmt.Sprintf("%+.3f ms", added), fmt.Sprintf("within plain's own spread, %.3f ms", noise), added <= noise},
		{"relayed, added one way", fmt.Sprintf("%.3f ms", r.hubOneWay()), fmt.Sprintf("%.1f ms", hubTime), r.hubOneWay() < hubTime},
		{"RSS, idle, six nodes (largest)", fmt.Sprintf("%.0f MB", idle), fmt.Sprintf("%d MB", idleMB), idle < idleMB},
		{"RSS after the load (largest)", fmt.Sprintf("%.0f MB", loaded), fmt.Sprintf("%d MB", loadedMB), loaded < loadedMB},
		{what: "  at its peak", value: fmt.Sprintf("%.0f MB", peak)},
		{what: "  plain wireguard-go: idle, after, peak", value: fmt.Sprintf("%.0f, %.0f, %.0f MB", r.PlainIdle.RSS, r.PlainLoad.RSS, r.PlainLoad.Peak)},
	}...)
	if cpu := most(r.CPU); len(r.CPU) > 0 {
		all = append(all, figure{"CPU, idle, six nodes (largest)", fmt.Sprintf("%.2f %% of a core", cpu), fmt.Sprintf("%.1f %%", idlePercent), cpu < idlePercent})
	}
	if r.Peers > 0 {
		rss, _ := mostMemory(r.Large)
		all = append(all, figure{fmt.Sprintf("RSS, %d configured peers", r.Peers), fmt.Sprintf("%.0f MB", rss), fmt.Sprintf("%d MB", largeMB), rss < largeMB})
		if len(r.CPU) > 0 {
			all = append(all, figure{what: "  CPU, idle", value: fmt.Sprintf("%.2f %% of a core", r.LargeCPU)})
		}
	}
	return all
}

func (r *results) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "median of %d\t\tbar\t\n", len(r.Plain))
	for _, f := range r.figures() {
		verdict := ""
		switch {
		case f.bar == "":
		case f.met:
			verdict = "met"
		default:
			verdict = "NOT MET"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.what, f.value, f.bar, verdict)
	}
	return t.Flush()
}
