#!/usr/bin/env bash
# Installs the Debian packages that `make run`, `make test` and `make bench`
# use. Does nothing when all are there; starts no service.
set -euo pipefail

packages=(
  # servers and clients that the tests run
  redis-server redis-tools memcached nginx-light iperf3 netpipe-tcp wrk curl wget python3
  nodejs openjdk-17-jdk-headless
  # programs that the tests run in instances
  git openssl perl postgresql procps ripgrep sqlite3 tmux vim zstd diffutils
  # tools of the tests: C compilers for the race detector and test programs
  gcc libc6-dev musl-tools ethtool iproute2
)

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "make deps: installing ${missing[*]} needs root; run it with sudo" >&2
  exit 1
fi
echo "installing: ${missing[*]}"

# The packages' servers must not start: policy-rc.d is Debian's way to say so.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
