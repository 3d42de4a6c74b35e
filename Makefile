# moggy: make up boots the reference fleet on this machine, make test runs everything.
# Both install what is missing with apt-get (scripts/needs.sh says what).

FLEET   ?= examples/cats/fleet.hcl
VERSION ?= 0.1.0-dev
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GO      ?= go
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint

.PHONY: help up down build binaries test unit lab-test test-mesh test-faults lint fmt fuzz bench bench-mesh bench-ingress bench-sim engines lab-engines deps clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

up: deps build   ## boot the reference fleet in a lab on this machine, apply, show its status
	scripts/up.sh bin/moggy $(FLEET)

down: build      ## end the lab that "up" left running
	bin/moggy lab down --file $(FLEET)

build:           ## bin/moggy for this machine
	$(GOBUILD) -o bin/moggy ./cmd/moggy

binaries: build  ## bin/moggy-linux-amd64 and bin/moggy-linux-arm64, for nodes of either kind
	GOARCH=amd64 GOOS=linux $(GOBUILD) -o bin/moggy-linux-amd64 ./cmd/moggy
	GOARCH=arm64 GOOS=linux $(GOBUILD) -o bin/moggy-linux-arm64 ./cmd/moggy

test: deps       ## everything: linters, unit tests with the race detector, the lab
	scripts/test.sh

unit:            ## the tests that need neither root nor a lab
	$(GO) test -race -skip '^Test(Lab|Netns)' ./...

lab-test: deps build lab-engines ## the tests on real machines and in real namespaces; needs root
	$(GO) test -p 1 -count 1 -timeout 60m -run '^Test(Lab|Netns)' ./...

test-mesh: deps  ## the mesh under every trouble, many times, in namespaces: failover 50 times (MOGGY_MESH_RUNS), hostile input, NATs; needs root, 2 hours
	MOGGY_MESH=all MOGGY_MESH_RUNS=$(MOGGY_MESH_RUNS) $(GO) test -count 1 -timeout 240m -v -run '^TestNetns(MTU|Failover|Hubs|Hostile|NATs|HubReadsNothing|Reload|PeerRestart)$$' ./internal/mesh
	$(GO) test -count 1 -timeout 60m -v -run '^TestFailover$$' ./internal/mesh/sim -runs 50

test-faults: deps build lab-engines ## every fault that a change must survive, on real machines: about half an hour; FAULT=name for one
	MOGGY_FAULTS=all MOGGY_FAULT=$(FAULT) $(GO) test -count 1 -timeout 90m -v -run '^TestLab(Faults|Skew|NodeBack|Rotate)$$' ./cmd/moggy

lint:            ## the linters, pinned in tools/go.mod
	$(LINT) run ./...

fmt:             ## format the code
	$(LINT) fmt ./...

fuzz:            ## every fuzz target for FUZZTIME (10m)
	scripts/fuzz.sh $(or $(FUZZTIME),10m)

bench:           ## the plan's benchmarks: time, memory, growth
	$(GO) test -run '^$$' -bench . -benchmem ./internal/plan ./internal/config/...

bench-mesh: deps build ## the mesh beside plain wireguard-go: throughput, latency, memory, idle CPU; needs root, 3 minutes
	CGO_ENABLED=0 $(GO) build -o bin/wireguard-go golang.zx2c4.com/wireguard
	$(GO) run ./cmd/meshbench -wireguard-go bin/wireguard-go $(BENCHFLAGS)

bench-ingress:   ## the ingress beside Caddy by itself: throughput, p99, CPU; 1 minute
	MOGGY_BENCH=1 $(GO) test -count 1 -run '^TestBench$$' -v ./internal/ingress 2>/dev/null | grep -v '^{'

bench-sim:       ## what a mesh of 10, 100, 1,000 and 5,000 costs, in the simulated internet: some minutes
	$(GO) test -count 1 -timeout 60m -run '^TestScale$$' -v ./internal/mesh/sim -args -sizes $(or $(SIZES),10,100,1000,5000)

lab-engines:     ## what the lab's internet serves that is built from source: a certificate authority and a few images
	@scripts/engine.sh pebble images nomad >/dev/null

engines:         ## build the engines (ENGINES="pebble ...") from pinned source into the lab's cache, for this machine
	@scripts/engine.sh $(or $(ENGINES),$(notdir $(patsubst %/build,%,$(wildcard engines/*/build))))

deps:            ## install what this machine lacks
	scripts/needs.sh

clean:
	rm -rf bin
