#!/usr/bin/env bash
# Runs every fuzz target of the repository, one after the other, for a time or a
# number of inputs.   fuzz.sh 10m   fuzz.sh 5000x
# With a time, go test before 1.27 may fail at its end with nothing but "context
# deadline exceeded" (golang/go#75804); a finding names a file in testdata/fuzz.
# What is found to be new is made smaller for a hundred tries only: by default that
# takes most of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
grep -rl --include='*_test.go' '^func Fuzz' internal cmd | sort | while read -r file; do
  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
    echo "== ${file%/*} $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 100x "./${file%/*}"
  done
done
