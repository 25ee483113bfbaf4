# shellcheck shell=bash disable=SC2034
# Where things are, and one line of progress with its time for each thing made.

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${FULA_NODE_TEST_CACHE:-/var/cache/fula-node-test}
# Keyed by what they are made from, so they may outlive an engine: see README.md.
STORE=$CACHE/store
LABEL=fula-node-test

say() { printf '%s\n' "$*"; }

die() {
  printf 'test/images: %s\n' "$*" >&2
  exit 1
}

# hash_of FILE...: one short key for what is in them, in this order.
hash_of() { cat "$@" | sha256sum | cut -c 1-16; }

# timed LABEL COMMAND...: runs it quietly; shows what takes longer than two seconds, and how long it took, or the end of its
# output and what failed. Never call it in a condition: bash would then ignore errors inside COMMAND.
timed() {
  local label=$1 began=$EPOCHREALTIME log status teller
  shift
  mkdir -p "$CACHE/logs"
  log=$CACHE/logs/$(tr -c 'A-Za-z0-9.\n' '-' <<<"$label").log
  (
    exec 9>&-
    trap 'kill $!; exit' TERM
    sleep 2 &
    wait $!
    printf '     ...  %s\n' "$label"
  ) &
  teller=$!
  set +e
  (set -euo pipefail && "$@") >"$log" 2>&1 </dev/null
  status=$?
  kill $teller 2>/dev/null
  wait $teller 2>/dev/null
  set -e
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    die "$label failed with exit code $status; all of its output is in $log"
  fi
  printf '%6.1f s  %s\n' "$((${EPOCHREALTIME/./} - ${began/./}))e-6" "$label"
}

# wait_until SECONDS COMMAND...: polls COMMAND until it succeeds; fails once the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# store PREFIX PATH: puts the finished PATH.part in its place, and removes what the store has for older inputs.
store() {
  local old
  mv "$2.part" "$2"
  for old in "$STORE/$1"-*; do [ "$old" = "$2" ] || rm -rf "$old"; done
}
