package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/moggyfleet/moggy/internal/lab/machine"
	"github.com/moggyfleet/moggy/internal/lab/space"
)

// Down takes the lab away: processes, namespaces, cgroups, files. It does so
// whatever state the lab is in, and is done at once if there is none.
func (l *Lab) Down(ctx context.Context) error {
	if err := asRoot(); err != nil {
		return err
	}
	lock, err := l.lock(ctx, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s := &session{Lab: l, lock: lock}
	defer s.close()
	// Whoever was killed before writing this had not made anything yet.
	if err := s.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.down(ctx)
}

func (s *session) down(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(s.run()); err != nil {
		return err
	}
	_ = os.Remove(runDir) // unless there is another lab
	return nil
}

// clear takes away everything but the lab's name.
func (s *session) clear(ctx context.Context) error {
	var nets []uint64
	if s.net != nil {
		for _, sp := range s.net.Spaces {
			if !space.Exists(s.full(sp.Name)) {
				continue
			}
			id, err := space.ID(space.Path(s.full(sp.Name)))
			if err != nil {
				return err
			}
			nets = append(nets, id)
		}
	}
	if err := machine.Kill(ctx, []string{machine.Mark(s.name)}, nets); err != nil {
		return err
	}
	if s.net != nil {
		for _, place := range s.net.Machines {
			if err := s.machine(s.state.Root, place).Gone(ctx); err != nil {
				return err
			}
		}
	}
	if err := machine.RemoveGroups(ctx, machine.LabGroup(s.name)); err != nil {
		return err
	}
	if s.net != nil {
		for _, sp := range s.net.Spaces {
			if err := space.Remove(s.full(sp.Name)); err != nil {
				return err
			}
		}
		space.RemoveDirectory()
	}
	if err := os.RemoveAll(s.disk()); err != nil {
		return err
	}
	_ = os.Remove(diskDir) // unless there is another lab
	return nil
}
