#!/usr/bin/env bash
# From nothing to a running fleet: boots the fleet's machines in a lab, applies
# the file over ssh, lets the machines that nobody can reach join by token, and
# shows the status. Everything but the first step is what an owner would type.
#   up.sh MOGGY FLEET.HCL
set -euo pipefail
moggy=$(realpath "$1") fleet=$(realpath "$2")
# What the lab's internet serves that is built from source: once, 15 s.
"$(dirname "$0")/engine.sh" pebble images >/dev/null
[ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=PATH "$0" "$@"

# The lock belongs to the machines; the lab's are not the example's, so a copy
# of the file is applied and the example stays as it is.
name=$(basename "$(dirname "$fleet")")
work=${MOGGY_UP_DIR:-/var/tmp/moggy-up-$name}
mkdir -p "$work"
cp -a "$(dirname "$fleet")/." "$work/"; [ "$(basename "$fleet")" = fleet.hcl ] || mv "$work/$(basename "$fleet")" "$work/fleet.hcl"
cd "$work"

started=$SECONDS
part() { printf '\n== %s   (%d s)\n' "$1" $((SECONDS - started)); }
operator() { "$moggy" lab run -- "$moggy" "$@"; }

part "booting the machines"
# Machines that are made anew have new keys; what was known of the old is void.
"$moggy" lab status >/dev/null 2>&1 || rm -f fleet.lock.hcl
"$moggy" lab up

part "applying fleet.hcl to those that can be reached"
operator apply --yes --accept-new

for node in $(operator status --json | sed -n '/"name":/{s/.*: "//;s/".*//;h};/"state": "absent"/{x;p}'); do
  part "$node: nobody can reach it, so it joins by token, at its own keyboard"
  "$moggy" lab copy "$moggy" "$node:/root/moggy"
  operator token "$node" | "$moggy" lab exec "$node" -- /root/moggy join --yes -
done

part "applying fleet.hcl to all"
operator apply --yes

part "status"
for _ in $(seq 30); do # agents that were restarted find each other again
  operator status >/dev/null && break
  sleep 1
done
operator status

# Every public host, as a stranger in the lab's internet sees it: its
# certificate is fetched when the first one asks, so the first may wait.
for host in $("$moggy" lab status --json | sed -n '/"hosts": \[$/,/\]/s/^ *"\([^"]*\)",\{0,1\}$/\1/p'); do
  part "https://$host, as a stranger sees it"
  for try in $(seq 60); do
    "$moggy" lab curl "https://$host/" -f -m 10 >"$work/page" 2>"$work/page.error" && break
    [ "$try" -lt 60 ] || { cat "$work/page.error" >&2; exit 1; }
    sleep 1
  done
  head -n 40 "$work/page"
done
printf '\nup in %d s. In %s, as the operator in the lab'"'"'s internet: moggy lab run. End it: moggy lab down\n' $((SECONDS - started)) "$work"
