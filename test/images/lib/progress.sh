# shellcheck shell=bash disable=SC2034
# Where things are, and one line of progress with its time for each thing made.

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${FULA_NODE_TEST_CACHE:-/var/cache/fula-node-test}
LABEL=fula-node-test
mkdir -p "$CACHE/logs"

say() { printf '%s\n' "$*"; }

die() {
  printf 'test/images: %s\n' "$*" >&2
  exit 1
}

# timed LABEL COMMAND...: runs it quietly; shows how long it took, or the end of its output and what failed.
# Never call it in a condition: bash would then ignore errors inside COMMAND.
timed() {
  local label=$1 began=$EPOCHREALTIME log status
  shift
  log=$CACHE/logs/$(tr -c 'A-Za-z0-9.\n' '-' <<<"$label").log
  set +e
  (set -euo pipefail && "$@") >"$log" 2>&1 </dev/null
  status=$?
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
