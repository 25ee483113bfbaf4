# shellcheck shell=bash disable=SC2034
# Where things are, and one line of progress with its time for each thing made.

# What is made must not depend on the shell that it is made from.
umask 022
export LC_ALL=C
unset CDPATH "${!DOCKER_@}"

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$(realpath --canonicalize-missing "${FULA_NODE_TEST_CACHE:-/var/cache/fula-node-test}")
# Everything in it is named by a hash of its inputs, so it may outlive an engine: see README.md.
STORE=$CACHE/store
LABEL=fula-node-test

# The engine's socket is in there, and its path is handed to programs that read lists of paths.
[[ $CACHE != *[[:space:]:,]* && ${#CACHE} -le 80 ]] || {
  echo "test/images: FULA_NODE_TEST_CACHE is $CACHE: it must have no space, colon or comma, and at most 80 characters" >&2
  exit 1
}

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

# One run at a time over one cache. The file may have been removed by `down` while we waited for it.
take_lock() {
  mkdir -p "${CACHE%/*}"
  while :; do
    exec 9>"$CACHE.lock"
    flock --nonblock 9 || { say "Waiting for another run over $CACHE ..." && flock 9; }
    [ ! "$CACHE.lock" -ef "/proc/$$/fd/9" ] || return 0
  done
}

# remove DIRECTORY: out of the way at once, so that a removal that is cut off leaves no half of it in its place.
remove() {
  [ ! -e "$1" ] || mv "$1" "$1.removed-$$"
  rm -rf --one-file-system "$1".removed-*
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
  sync -f "$2.part"
  mv "$2.part" "$2"
  for old in "$STORE/$1"-*; do [ "$old" = "$2" ] || rm -rf "$old"; done
}
