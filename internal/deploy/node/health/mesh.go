package health

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/internal/fleet"
)

// throughMesh binds a socket to the mesh's interface (socket(7),
// SO_BINDTODEVICE), so that no router elsewhere can answer in a hub's place.
func throughMesh(_, _ string, c syscall.RawConn) error {
	var bound error
	err := c.Control(func(fd uintptr) {
		bound = unix.BindToDevice(int(fd), fleet.MeshInterface)
	})
	return errors.Join(err, bound)
}
