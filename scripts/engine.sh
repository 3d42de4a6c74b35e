#!/usr/bin/env bash
# Builds an engine of engines/NAME from its pinned source into the lab's cache,
# once: the directory there is named after everything that decides what comes
# out. Prints that directory; says on stderr how far it is.
#   engine.sh NAME...          for this machine
#   GOARCH=arm64 engine.sh ... for another
#
# engines/NAME has a go.mod and go.sum (the versions and their hashes) and
# "build": the arguments of go build, flags first, any number of lines; and "env",
# where go needs more of its environment than is common to all (cgo, a linker).
# CACHE/engines/NAME-ARCH leads to what was built last; CACHE is $MOGGY_CACHE,
# else /var/cache/moggy/lab.
set -euo pipefail
cd "$(dirname "$0")/../engines"
cache=${MOGGY_CACHE:-/var/cache/moggy/lab}/engines
go=${GO:-go}
arch=${GOARCH:-$($go env GOHOSTARCH)}
[ $# -gt 0 ] || { echo "engine.sh: which one? $(ls -d */ | tr -d /  | tr '\n' ' ')" >&2; exit 2; }

# Only what goes into the cache needs the cache's owner; nothing is compiled as root.
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)

# progress counts what the compiler names, and keeps all other lines for the end.
progress() {
  local name=$1 log=$2 line packages=0 shown=$SECONDS
  while IFS= read -r line; do
    case $line in
    *" "*) echo "$line" >>"$log" ;;
    *)
      packages=$((packages + 1))
      if [ -t 2 ]; then
        printf '\r%s: compiling, %d packages, %d s ' "$name" "$packages" "$SECONDS" >&2
      elif [ $((SECONDS - shown)) -ge 20 ]; then
        shown=$SECONDS
        echo "$name: compiling, $packages packages, $SECONDS s" >&2
      fi
      ;;
    esac
  done
}

build() {
  local name=$1 key dir work
  shift
  [ -f "$name/build" ] || { echo "engine.sh: no engine $name: $PWD/$name/build is not there" >&2; return 1; }
  key=$({ echo 1 "$arch" "$($go env GOVERSION)"; cd "$name"; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum | cut -c 1-12)
  dir=$cache/$name-$arch-$key
  if ! "${root[@]}" test -d "$dir"; then
    "${root[@]}" mkdir -p "$cache"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -rf '$work'" EXIT
    mkdir "$work/out"
    : >"$work/log"
    echo "$name: building from source, once" >&2
    SECONDS=0
    [ "$arch" = "$($go env GOHOSTARCH)" ] || set -- CC="$([ "$arch" = arm64 ] && echo aarch64 || echo x86_64)-linux-gnu-gcc"
    # shellcheck disable=SC2046 # the files are lists of words
    (cd "$name" && env CGO_ENABLED=0 GOOS=linux GOARCH="$arch" GOFLAGS=-mod=readonly "$@" $(cat env 2>/dev/null) \
      "$go" build -v -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/out/" $(cat build) 2>&1) | progress "$name" "$work/log" ||
      { [ ! -t 2 ] || echo >&2; cat "$work/log" >&2; return 1; }
    [ ! -t 2 ] || printf '\r\033[K' >&2
    chmod 755 "$work/out"
    # Whole or not at all, and whoever else built the same meanwhile is as good.
    "${root[@]}" rm -rf "$dir.$$"
    "${root[@]}" cp -r "$work/out" "$dir.$$"
    "${root[@]}" mv -T "$dir.$$" "$dir" 2>/dev/null || "${root[@]}" rm -rf "$dir.$$"
    echo "$name: built in $SECONDS s" >&2
  fi
  if [ "$("${root[@]}" readlink "$cache/$name-$arch")" != "$(basename "$dir")" ]; then
    "${root[@]}" ln -sfn "$(basename "$dir")" "$cache/$name-$arch"
  fi
  echo "$dir"
}

for name; do (build "$name"); done
