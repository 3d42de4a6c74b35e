#!/usr/bin/env bash
# Everything that must hold before a change lands. Needs root for the lab; where
# there is none, says what it leaves out.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
part() { printf '\n== %s   (%d s)\n' "$1" $((SECONDS - started)); }

part "build"
make --no-print-directory build
part "linters"
make --no-print-directory lint
part "unit tests, race detector on"
go test -race -skip '^Test(Lab|Netns)' ./...
part "a mesh of hundreds, simulated: too slow with the race detector"
go test -run '^TestScale$' ./internal/mesh/sim
part "fuzz targets, briefly"
scripts/fuzz.sh 2000x
if [ "$(id -u)" -eq 0 ]; then
  part "the lab: real machines"
  make --no-print-directory lab-test
else
  part "left out: the lab's tests, which need root"
fi
part "all passed"
