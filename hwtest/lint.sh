#!/usr/bin/env bash
# Formatting, vet, staticcheck and dead code. Prints nothing when all is well.
set -euo pipefail
cd "$(dirname "$0")/.."
# One variant of the dependencies for all that follows but the race detector.
export CGO_ENABLED=0
fail=0

unformatted=$(go tool gofumpt -l $(git ls-files -co --exclude-standard '*.go'))
if [ -n "$unformatted" ]; then
  echo "not formatted (go tool gofumpt -w FILE):"
  echo "$unformatted"
  fail=1
fi
go vet ./... || fail=1
go vet -tags soak ./hwtest || fail=1
go tool staticcheck ./... || fail=1
dead=$(go tool deadcode -test ./...)
if [ -n "$dead" ]; then
  echo "code that nothing reaches, tests included:"
  echo "$dead"
  fail=1
fi
exit $fail
