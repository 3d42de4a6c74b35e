#!/usr/bin/env bash
# Runs every fuzz target of the repository for the given time, one after the
# other.   fuzz.sh 10m
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
grep -rl --include='*_test.go' '^func Fuzz' internal cmd | sort | while read -r file; do
  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
    echo "== ${file%/*} $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./${file%/*}"
  done
done
