package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/moggyfleet/moggy/internal/fleet"
	"github.com/moggyfleet/moggy/internal/hint"
)

// askHostKey asks about one key at a time, however many nodes wait.
func (a *App) askHostKey() func(fleet.NodeName, string) (bool, error) {
	var mu sync.Mutex
	return func(node fleet.NodeName, line string) (bool, error) {
		if a.AcceptNew {
			return true, nil
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return false, err
		}
		mu.Lock()
		defer mu.Unlock()
		return a.Confirm(fmt.Sprintf("%s shows %s %s, seen for the first time. Is it right?", node, key.Type(), ssh.FingerprintSHA256(key)), "--accept-new")
	}
}

// Confirm asks a question that yes or no answers. Where nobody can be asked,
// the error names the flag that would have answered.
func (a *App) Confirm(question, flag string) (bool, error) {
	if in, ok := a.Stdin.(*os.File); ok {
		if _, tty := terminal(in); !tty {
			return false, hint.New("there is nobody to ask: "+question, "say yes beforehand: %s", flag)
		}
	}
	fmt.Fprintf(a.Stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if err != nil && line == "" {
		return false, hint.Wrap(errors.New("no answer"), "say yes beforehand: %s", flag)
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
