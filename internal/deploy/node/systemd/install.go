package systemd

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/moggyfleet/moggy/internal/deploy/node/protocol"
)

// Units are enabled by links of our own, as their [Install] section says, and
// not by `systemctl enable`: of a unit file that is a link, systemctl resolves
// the whole chain, so its link would lead into one generation and outlive it.

var targetForm = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.[a-z]+$`)

// InstallLinks are the links that enable a unit, by path: each leads to the
// unit file. Of [Install] it understands WantedBy, RequiredBy and UpheldBy
// (systemd.unit(5)); what else could be there is an error rather than ignored.
func InstallLinks(unit string, unitFile []byte) (map[string]string, error) {
	out := make(map[string]string)
	section := ""
	lines := bufio.NewScanner(bytes.NewReader(joinLines(unitFile)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if section != "Install" {
			continue
		}
		dir, ok := map[string]string{"WantedBy": ".wants", "RequiredBy": ".requires", "UpheldBy": ".upholds"}[strings.TrimSpace(key)]
		if !ok {
			return nil, fmt.Errorf("unit %s: [Install] %s: only WantedBy, RequiredBy and UpheldBy are understood", unit, strings.TrimSpace(key))
		}
		for target := range strings.FieldsSeq(value) {
			if !targetForm.MatchString(target) {
				return nil, fmt.Errorf("unit %s: [Install] %s: %q is not a unit's name", unit, strings.TrimSpace(key), target)
			}
			out[path.Join(protocol.SystemdDir, target+dir, unit)] = protocol.UnitFile(unit)
		}
	}
	return out, lines.Err()
}

// joinLines puts lines that end in a backslash together with the next
// (systemd.syntax(7)).
func joinLines(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte("\\\n"), []byte(" "))
}
