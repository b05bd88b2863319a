#!/usr/bin/env bash
# Runs every fuzz target of the tree, or of the folders named as arguments, for
# FUZZTIME each (default 60s). Crashers stay in testdata/fuzz of the package.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s}
dirs=${*:-$(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u)}
for dir in $dirs; do
  for target in $(grep -ohE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | cut -d' ' -f2); do
    echo "== $dir $target ($time)"
    out=$(go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x </dev/null 2>&1) && status=0 || status=$?
    echo "$out" | tail -n 20
    # go test may report a worker that was at an input when the time was up as a
    # failure; an input that fails is always written down.
    if [ "$status" -ne 0 ] && ! { grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input' <<<"$out"; }; then
      exit "$status"
    fi
  done
done
