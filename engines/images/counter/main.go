// Command counter counts the requests to it in a file, and keeps that file to
// itself: a second counter on the same file does not start. It is what a
// database is to a scheduler, made small.
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/moggyfleet/moggy/engines/images/internal/serve"
)

func main() {
	dir := os.Getenv("DATA")
	if dir == "" {
		dir = "/data"
	}
	c, err := open(dir)
	serve.Main(c, err)
}

// nobody is who it becomes once it owns its folder, as databases do.
const nobody = 65534

type counter struct {
	mu   sync.Mutex
	file *os.File
	n    uint64
}

var errHeld = errors.New("another counter holds it")

// open takes the file in dir for itself, until it ends.
func open(dir string) (*counter, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "count")
	if os.Geteuid() == 0 {
		if err := own(dir, path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s: %w (%w)", path, errHeld, err)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	c := &counter{file: f}
	if s := strings.TrimSpace(string(text)); s != "" {
		if c.n, err = strconv.ParseUint(s, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, nil
}

// own gives the folder to nobody, and becomes that.
func own(dir, path string) error {
	if err := os.Chown(dir, nobody, nobody); err != nil {
		return err
	}
	if err := os.Chown(path, nobody, nobody); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(nobody); err != nil {
		return err
	}
	return syscall.Setuid(nobody)
}

// ServeHTTP counts a POST, and tells the count. It is on the disk before it is
// told.
func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method == http.MethodPost {
		if err := c.write(c.n + 1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c.n++
	}
	fmt.Fprintln(w, c.n)
}

func (c *counter) write(n uint64) error {
	// Never shorter than before, so that no byte of the old one is left over.
	if _, err := c.file.WriteAt([]byte(strconv.FormatUint(n, 10)+"\n"), 0); err != nil {
		return err
	}
	return c.file.Sync()
}
