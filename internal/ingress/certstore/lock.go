package certstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

const (
	// lockFor is how long a grant lasts that nobody renews: a node that died lets go
	// of its locks by that.
	lockFor = 20 * time.Second
	// lockPause is how long one waits for a lock that another has before it asks
	// again.
	lockPause = 300 * time.Millisecond
)

// grant is a lock that this node granted.
type grant struct {
	token string
	until time.Time
}

// hold is a lock that this node has.
type hold struct {
	token string
	stop  context.CancelFunc // of renewing it
}

// Lock waits until this node may do what name says, alone among all that can be
// reached.
func (s *Store) Lock(ctx context.Context, name string) error {
	token := rand.Text()
	for !s.acquire(ctx, name, token) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", name, context.Cause(ctx))
		case <-time.After(lockPause):
		}
	}
	renew, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.held[name] = hold{token, stop}
	s.mu.Unlock()
	go s.renew(renew, name, token)
	return nil
}

// Unlock lets go of a lock that Lock gave.
func (s *Store) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	h, ok := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("lock %s: not held", name)
	}
	h.stop()
	s.release(ctx, name, h.token)
	return nil
}

// acquire asks every node that can be reached, in the order of their names. Where
// one has granted it to another, what was granted before is given back.
func (s *Store) acquire(ctx context.Context, name, token string) bool {
	for _, m := range s.members() {
		err := s.ask(ctx, m, message{Op: opLock, Name: name, Token: token})
		if errors.Is(err, errDenied) {
			s.release(ctx, name, token)
			return false
		}
	}
	return ctx.Err() == nil
}

func (s *Store) release(ctx context.Context, name, token string) {
	ctx = context.WithoutCancel(ctx) // who waited in vain must not leave it taken
	for _, m := range s.members() {
		_ = s.ask(ctx, m, message{Op: opUnlock, Name: name, Token: token}) // it ends by itself
	}
}

func (s *Store) renew(ctx context.Context, name, token string) {
	tick := time.NewTicker(lockFor / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, m := range s.members() {
				_ = s.ask(ctx, m, message{Op: opLock, Name: name, Token: token}) // at most, it is done twice
			}
		}
	}
}

// ask carries out m at a peer, or here for nil.
func (s *Store) ask(ctx context.Context, p *peer, m message) error {
	if p == nil {
		if m.Op == opUnlock {
			s.letGo(m.Name, m.Token)
		} else if !s.give(m.Name, m.Token, time.Now()) {
			return errDenied
		}
		return nil
	}
	answer, err := s.call(ctx, p, m)
	if err == nil && answer.Denied {
		return errDenied
	}
	return err
}

// maxGrants bounds what peers can make this node remember.
const maxGrants = 10_000

// give grants the lock to who shows token, unless another has it.
func (s *Store) give(name, token string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g, ok := s.grants[name]; ok && g.token != token && now.Before(g.until) {
		return false
	}
	if len(s.grants) >= maxGrants {
		clear(s.grants)
	}
	s.grants[name] = grant{token, now.Add(lockFor)}
	return true
}

func (s *Store) letGo(name, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grants[name].token == token {
		delete(s.grants, name)
	}
}
