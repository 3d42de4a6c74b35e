// Package operate is what an operator does to what runs, without changing what
// shall run: read its log, restart it, look inside. Which nodes it runs on the
// fleet says; how to reach them package ssh knows.
package operate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// Subject is what a command is about: a service, or all of moggy on one node.
type Subject struct {
	Service fleet.ServiceName // "" for a node
	Nodes   []fleet.NodeName
	Units   []string // patterns as systemctl(1) takes them
}

// Find reads what an operator calls a subject: a service's name, a node's, or
// service.NAME and node.NAME where both have it. Only names a node when it is not
// empty: the service's instance there.
func Find(f *fleet.Fleet, name string, only fleet.NodeName) (Subject, error) {
	kind, rest, prefixed := strings.Cut(name, ".")
	if prefixed && kind != "node" && kind != "service" {
		prefixed = false
	}
	if !prefixed {
		kind, rest = "", name
	}
	service, isService := f.Service(fleet.ServiceName(rest))
	_, isNode := f.Node(fleet.NodeName(rest))
	switch {
	case isService && kind != "node":
		return instances(f, service, only)
	case isNode && kind != "service":
		return Subject{Nodes: []fleet.NodeName{fleet.NodeName(rest)}, Units: []string{"moggy-*"}}, nil
	}
	return Subject{}, hint.New(fmt.Sprintf("there is no service or node %q in the file", rest), "moggy status lists them")
}

func instances(f *fleet.Fleet, s fleet.Service, only fleet.NodeName) (Subject, error) {
	if s.Static != "" {
		return Subject{}, hint.New(fmt.Sprintf("service %s is a folder, it has no instances", s.Name), "who asked for it: moggy logs node.NAME, of an ingress node")
	}
	out := Subject{Service: s.Name, Nodes: f.Places(s), Units: []string{s.Name.Unit()}}
	if only == "" {
		return out, nil
	}
	if !slices.Contains(out.Nodes, only) {
		return out, hint.New(fmt.Sprintf("service %s has no instance on %s", s.Name, only), "it runs on %s", names(out.Nodes))
	}
	out.Nodes = []fleet.NodeName{only}
	return out, nil
}

func names(nodes []fleet.NodeName) string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = string(n)
	}
	return strings.Join(out, ", ")
}
