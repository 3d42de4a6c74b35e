package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/moggyfleet/moggy/cmd/moggy/internal/ingresscmd"
)

// dropCode gives back the pages of our own program that were only looked at while it
// started: what one daemon needs of it is a small part, and the rest (the engine of
// the ingress, for the agent) would count as its memory until somebody else is short
// of it. What is needed again comes back from the page cache. Without /proc nothing
// happens.
func dropCode() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		// Only what is read from the file and never written: its content is the file's.
		if len(f) < 6 || string(f[5]) != self || bytes.ContainsRune(f[1], 'w') {
			continue
		}
		var from, to uintptr
		if n, err := fmt.Sscanf(string(f[0]), "%x-%x", &from, &to); n != 2 || err != nil {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // it is no harm where they stay
	}
}

// newIngressCommand is the ingress, which logs as the agent does.
func newIngressCommand(a *app) *cobra.Command {
	log := func() *slog.Logger {
		return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	}
	return ingresscmd.New(a.App, log, ready)
}

// settled is how long after it is ready a daemon has done what it does once.
const settled = 10 * time.Second

// ready tells systemd that a daemon serves, and drops what only its start needed.
func ready(state string) {
	if state == "READY=1" {
		dropCode()
		time.AfterFunc(settled, dropCode)
	}
	notifySystemd(state)
}
