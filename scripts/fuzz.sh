#!/usr/bin/env bash
# Runs every fuzz target of the repository for the given time each.
set -euo pipefail

duration=${1:?usage: fuzz.sh DURATION}
found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  echo "== $target in ./$(dirname "$file")"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration"  -fuzzminimizetime 10x "./$(dirname "$file")"
done < <(git ls-files '*_test.go' | xargs grep -oHE '^func (Fuzz[A-Za-z0-9_]+)' | sed -E 's/:func /:/')
echo "$found fuzz targets"
[ "$found" -gt 0 ]
