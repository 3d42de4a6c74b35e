package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTwoHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold.lock")
	since := time.Date(2026, 11, 22, 14, 2, 11, 0, time.UTC)
	l, err := Take(t.Context(), path, Holder{By: "ada@desk", What: "apply", Since: since})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(t.Context(), path, Holder{By: "nico@laptop"})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "locked by ada@desk (apply) since 2026-11-22T14:02:11Z") {
		t.Errorf("the second: %v", err)
	}
	if !Held(path) {
		t.Error("not held")
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	l, err = Take(t.Context(), path, Holder{By: "nico@laptop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil || Held(path) {
		t.Errorf("%v", err)
	}
}

// TestSameSession: whoever comes back over another connection need not wait until
// the keeper of the lost one notices.
func TestSameSession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold.lock")
	keeper := exec.Command("flock", "--no-fork", path, "sleep", "60")
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		keeper.Wait()
		close(ended)
	}()
	t.Cleanup(func() { keeper.Process.Kill(); <-ended })
	for !Held(path) {
		time.Sleep(time.Millisecond)
	}
	doc := fmt.Sprintf(`{"by":"nico@laptop","what":"apply","session":"S","keeper":%d}`, keeper.Process.Pid)
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"", "T"} {
		if _, err := Take(t.Context(), path, Holder{By: "ada@desk", Session: other}); !errors.Is(err, ErrLocked) {
			t.Errorf("session %q: %v, want it refused", other, err)
		}
	}
	l, err := Take(t.Context(), path, Holder{By: "nico@laptop", Session: "S"})
	if err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestHeard(t *testing.T) {
	tests := map[string]struct {
		speak func(w *io.PipeWriter)
		took  time.Duration
		want  string
	}{
		"ends at once":   {func(w *io.PipeWriter) { w.Close() }, 0, ""},
		"falls silent":   {func(w *io.PipeWriter) { w.Write([]byte("\n")) }, 20 * time.Second, "nothing was heard"},
		"never speaks":   {func(*io.PipeWriter) {}, 20 * time.Second, "nothing was heard"},
		"speaks a while": {speak, 95 * time.Second, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				defer w.Close()
				go tt.speak(w)
				began, has := time.Now(), 0
				err := Heard(t.Context(), 20*time.Second, r, func() error { has++; return nil })
				if took := time.Since(began); took != tt.took || has != 1 {
					t.Errorf("took %s, want %s; said %d times", took, tt.took, has)
				}
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			})
		})
	}
}

// speak gives a line every 19 s, and ends.
func speak(w *io.PipeWriter) {
	for range 5 {
		time.Sleep(19 * time.Second) // virtual
		w.Write([]byte("here\n"))
	}
	w.Close()
}
