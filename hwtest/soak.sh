#!/usr/bin/env bash
# Runs the parts of the issues' figures at full size, a line each: figure, bound,
# ok or short. Names of parts as arguments run these alone.
set -uo pipefail
cd "$(dirname "$0")/.."
export CISTERN_SOAK=1
fail=0

story() { # name of the part, pattern of tests
  local out
  out=$(go test -count=1 -timeout 9m -v ./hwtest -run "$2" 2>&1) || { fail=1; echo "$out" | grep -E '^\s*(---|.*_test.go)' ; }
  echo "$out" | sed -n 's/.*figure: //p'
  echo "$out" | grep -qE '^ok' && echo "$1: ok" || echo "$1: short"
}
demo() {
  CGO_ENABLED=0 go build -trimpath -o bin/ ./hwtest/demo && bin/demo lan --size "${SIZE:-200MB}" --bin bin || fail=1
}
crash() { # kill -9 of the store, 200 rounds
  local out
  out=$(CISTERN_CRASH_ROUNDS=200 go test -count=1 -timeout 9m -v ./cache -run 'TestCrash' 2>&1) || fail=1
  echo "$out" | grep -E 'round|^ok|FAIL'
}

parts=${*:-run.origin apt.install fill.kill torrent.clients input.bad store.crash demo}
for part in $parts; do
  echo "== $part"
  case $part in
    run.origin) story "$part" 'TestSecondAnswerDoesNotTouchTheOrigin' ;;
    apt.install) story "$part" 'TestAptInstallsThroughTheBox' ;;
    fill.kill) story "$part" 'TestKillInTheMiddleOfAFill' ;;
    torrent.clients) story "$part" 'TestTorrentClientsDrinkFromTheBox' ;;
    input.bad) story "$part" 'TestBadInput' ;;
    store.crash) crash ;;
    demo) demo ;;
    *) echo "no such part: $part (run.origin apt.install fill.kill torrent.clients input.bad store.crash demo)"; exit 2 ;;
  esac
done
exit $fail
