#!/usr/bin/env bash
# Installs with apt-get what the lab and the tests need and this machine lacks.
# Says nothing where nothing is missing. Go itself must be there already.
set -euo pipefail

declare -A package=(
  [systemd-nspawn]=systemd-container [debootstrap]=debootstrap [nft]=nftables
  [ip]=iproute2 [wg]=wireguard-tools [ssh]=openssh-client [ping]=iputils-ping [iptables]=iptables
  [iperf3]=iperf3
)
missing=()
for command in "${!package[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${package[$command]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || { echo "needs.sh: no apt-get here; install by hand: ${missing[*]}" >&2; exit 1; }
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get -qq update
"${sudo[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
