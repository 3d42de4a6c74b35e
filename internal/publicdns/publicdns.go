// Package publicdns asks the DNS that the operator's machine uses what names lead
// to. What they should lead to is package fleet's business, and what is said
// about the difference package plan's.
package publicdns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/moggyfleet/moggy/internal/plan"
)

// patience bounds all questions together: a plan waits for them.
const patience = 2 * time.Second

// Look asks for the addresses of each name, all side by side.
func Look(ctx context.Context, names []string) map[string]plan.Lookup {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out := make(map[string]plan.Lookup, len(names))
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, name := range names {
		wait.Go(func() {
			l := look(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			out[name] = l
		})
	}
	wait.Wait()
	return out
}

func look(ctx context.Context, name string) plan.Lookup {
	// With the final dot no search domain is tried.
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name+".")
	var said *net.DNSError
	switch {
	case errors.As(err, &said) && said.IsNotFound:
		return plan.Lookup{}
	case err != nil:
		return plan.Lookup{Problem: "no name server answers"}
	}
	unmapped := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		unmapped[i] = a.Unmap()
	}
	return plan.Lookup{Addrs: unmapped}
}
