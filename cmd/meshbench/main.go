// Command meshbench measures the mesh beside plain wireguard-go, in network
// namespaces of this machine and in one run: the two take turns, so that
// whatever else the machine does meets both. It runs the programs that users
// run, each node a process of its own, and prints medians beside their bars. It
// needs root, ip, nft, wg, ping and iperf3; how the mesh behaves when something
// fails is not its business.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// options are what is measured, and how long.
type options struct {
	moggy     string              // the programs
	wireguard string              // wireguard-go
	rounds    int                 // of which the median counts
	enough    func(*results) bool // says after a round that no other is needed; nil for all
	transfer  time.Duration       // of one TCP stream
	omit      time.Duration       // of its beginning, not counted
	wide      bool                // plain wireguard-go with its own MTU, too
	pings     int                 // of one round
	idle      time.Duration       // how long the idle fleet's CPU time is counted; 0 for not
	peers     int                 // configured ones; 0 for not
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "meshbench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{omit: time.Second, wide: true}
	flags := flag.NewFlagSet("meshbench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.moggy, "moggy", "bin/moggy", "the moggy to measure")
	flags.StringVar(&o.wireguard, "wireguard-go", "", "the wireguard-go to compare with")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each is measured; the median counts")
	flags.DurationVar(&o.transfer, "transfer", 3*time.Second, "length of one TCP transfer")
	flags.IntVar(&o.pings, "pings", 400, "echo requests per round")
	flags.DurationVar(&o.idle, "idle", 30*time.Second, "how long CPU time of the idle fleet is counted; 0 for not at all")
	flags.IntVar(&o.peers, "peers", 1000, "configured peers of the large fleet")
	asJSON := flags.Bool("json", false, "print the figures as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case o.wireguard == "":
		return errors.New("-wireguard-go: no program given")
	case o.rounds < 1 || o.pings < 1:
		return errors.New("-rounds, -pings: at least one")
	case o.transfer < time.Second:
		return errors.New("-transfer: at least a second")
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(stdout).Encode(r)
	}
	return r.print(stdout)
}
