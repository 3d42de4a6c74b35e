package cli

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commitOf is the git commit that the fleet's files are at, short, with "+"
// behind it where one of them has changes that are in none; "" where they are
// not in git, or there is no git.
func commitOf(ctx context.Context, files []string) string {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	dir := filepath.Dir(files[0])
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "--short=10", "HEAD").Output()
	if err != nil {
		return ""
	}
	commit := strings.TrimSpace(string(out))
	args := []string{"-C", dir, "status", "--porcelain", "--"}
	for _, f := range files {
		if abs, err := filepath.Abs(f); err == nil {
			args = append(args, abs)
		}
	}
	if out, err = exec.CommandContext(ctx, "git", args...).Output(); err != nil || len(out) > 0 {
		commit += "+"
	}
	return commit
}
