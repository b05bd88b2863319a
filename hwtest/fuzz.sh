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
    go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" </dev/null
  done
done
