package archtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/dependencies.md")

// licences that may be linked, by words that only their text has.
func licences() []struct{ name, words string } {
	return []struct{ name, words string }{
		{"Apache-2.0", "Apache License"},
		{"MPL-2.0", "Mozilla Public License"},
		{"CC0-1.0", "CC0 1.0"},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software"},
		{"MIT", "Permission is hereby granted, free of charge"},
		{"BSD-3-Clause", "Neither the name"},
		{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	}
}

// TestLicences holds docs/dependencies.md to what the binary links, and every
// licence there to those that may be linked.
func TestLicences(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}`, module+"cmd/moggy").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	var doc strings.Builder
	doc.WriteString("# What moggy links\n\nWritten by `go test ./internal/archtest -update`; what each is for stands in go.mod.\n\n| module | version | licence |\n|---|---|---|\n")
	for _, line := range slices.Compact(lines) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		fmt.Fprintf(&doc, "| %s | %s | %s |\n", f[0], f[1], licence(t, f[2]))
	}
	file := filepath.Join("..", "..", "docs", "dependencies.md")
	if *update {
		if err := os.WriteFile(file, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, file)), doc.String()); diff != "" {
		t.Errorf("docs/dependencies.md (-is +should be; -update rewrites it):\n%s", diff)
	}
}

func licence(t *testing.T, dir string) string {
	t.Helper()
	for _, pattern := range []string{"LICEN[CS]E*", "COPYING*", "licen[cs]e*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text := strings.Join(strings.Fields(string(read(t, f))), " ")
			for _, l := range licences() {
				if strings.Contains(text, l.words) {
					return l.name
				}
			}
		}
	}
	t.Errorf("%s: no licence that may be linked", dir)
	return "?"
}
