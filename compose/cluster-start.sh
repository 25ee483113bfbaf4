#!/bin/sh
# fula-node: stands before ipfs-cluster-service in the container's PATH, so the image's entrypoint calls it.
# `init` chooses the datastore of a new peer.
# `closed-daemon` starts the daemon without ipfsproxy (port 9095) and pinsvcapi (9097), which ask for no
# password. They can be turned off only by leaving their sections out of service.json.
set -eu
program=/usr/local/bin/ipfs-cluster-service
data=${IPFS_CLUSTER_PATH:-/data/ipfs-cluster}

# A new peer gets badger3: the default, pebble, holds what it wrote last in its own memory and answers 200
# all the same, so a kill -9 loses pins. badger3 writes into files mapped from the kernel, which outlive
# the process. A follower would be told again by its masters, but only after minutes.
# A store that lies there without its service.json is gone on with: another one would be an empty pinset.
# Of two --datastore the last counts, so a caller's own stands.
if [ "${1:-}" = init ] && [ ! -e "$data/service.json" ]; then
  datastore=badger3
  for kept in badger leveldb pebble badger3; do
    [ ! -d "$data/$kept" ] || datastore=$kept
  done
  shift
  # Made elsewhere and synced first: ipfs-cluster writes both files without a sync, and the image looks for service.json
  # only. A power cut would leave an empty one for good.
  new=$data/init.fula-node
  rm -rf "$new"
  mkdir "$new"
  [ ! -e "$data/identity.json" ] || cp -p "$data/identity.json" "$new"
  IPFS_CLUSTER_PATH=$new "$program" init --datastore "$datastore" "$@"
  sync
  for file in peerstore identity.json service.json; do mv "$new/$file" "$data"; done
  rm -rf "$new"
  sync
  exit 0
fi

[ "${1:-}" = closed-daemon ] || exec "$program" "$@"
shift

case "${CLUSTER_CRDT_TRUSTEDPEERS-*}" in
  *\**)
    echo "fula-node: CLUSTER_CRDT_TRUSTEDPEERS is missing or has a '*': everyone could rewrite the pinset." >&2
    exit 1
    ;;
esac

# A follower also joins by the masters' addresses, not only connects to them: after a join, ipfs-cluster connects kubo to
# the masters' kubos a second time, where the first time was too early. --no-trust: whom the follower trusts stands in
# CLUSTER_CRDT_TRUSTEDPEERS alone.
if [ "${CLUSTER_FOLLOWERMODE:-}" = true ] && [ -n "${CLUSTER_PEERADDRESSES:-}" ]; then
  set -- --bootstrap "$CLUSTER_PEERADDRESSES" --no-trust "$@"
fi

if [ "${CLUSTER_FOLLOWERMODE:-}" = true ]; then
  own=$(sed -n 's/.*"id" *: *"\([^"]*\)".*/\1/p' "$data/identity.json")
  case ",${CLUSTER_CRDT_TRUSTEDPEERS}," in
    *,,* | *",${own:-,},"*)
      echo "fula-node: CLUSTER_CRDT_TRUSTEDPEERS names nobody, or this node itself: a follower obeys the masters." >&2
      exit 1
      ;;
  esac
fi

# Only for the daemon: `init` would write it into service.json, where it would outlive a change of .env. A blank value
# would be an empty list of users, with which the daemon does not start.
if [ -n "${CLUSTER_CREDENTIALS:-}" ]; then
  export CLUSTER_RESTAPI_BASICAUTHCREDENTIALS="$CLUSTER_CREDENTIALS"
fi

config=$data/service.json
for file in "$config" "$data/identity.json"; do
  [ ! -e "$file" ] || [ -s "$file" ] || {
    echo "fula-node: $file is empty. See docs/troubleshooting.md#ipfs-clusters-configuration-is-empty." >&2
    exit 1
  }
done
open='"(ipfsproxy|pinsvcapi)"'
if grep -Eq "$open" "$config"; then
  # Copied first, so that the new file has the old one's owner and mode.
  cp -p "$config" "$config.closed"
  awk '
    !depth && /^[ \t]*"(ipfsproxy|pinsvcapi)"[ \t]*:[ \t]*[{]/ { cutting = 1 }
    cutting {
      opened = $0; closed = $0
      depth += gsub(/[{]/, "", opened) - gsub(/[}]/, "", closed)
      if (depth > 0) next
      cutting = 0
      # The last section of its object: what stands before it may keep no comma.
      if ($0 !~ /,[ \t]*$/) sub(/,[ \t]*$/, "", line)
      next
    }
    { if (started) print line; line = $0; started = 1 }
    END { print line }
  ' "$config" >"$config.closed"
  if grep -Eq "$open" "$config.closed"; then
    echo "fula-node: can't take ipfsproxy and pinsvcapi out of $config; delete both sections by hand." >&2
    exit 1
  fi
  sync
  mv "$config.closed" "$config"
fi

# badger3 answers before its mapped files are on the disk, so a power cut loses the last pins, unless each write is synced:
# the sync that the pinset asks for leaves out the newest keys (badger 3.2103). Batching (crdt.batching) is no cheaper way:
# it answers when a pin is only in its queue. Pins of our own pinning API are sent again when the pinset lacks them; those
# that came by ipfs-cluster's own API, and unpins, would be lost without a word.
# A follower need not wait for that: its masters tell it again.
unsynced='"sync_writes" *: *false'
if [ "${CLUSTER_FOLLOWERMODE:-}" != true ] && grep -Eq "$unsynced" "$config"; then
  cp -p "$config" "$config.synced"
  sed -E "s/$unsynced/\"sync_writes\": true/" "$config" >"$config.synced"
  sync
  mv "$config.synced" "$config"
fi

# A pin that kubo does not take is tried again only 12 minutes later (pin_recover_interval), so kubo comes first. Where it
# stays away for a minute, the daemon starts all the same: the pinset is known then, and the healthcheck says what is wrong.
tries=60
until wget -q -T 3 -O /dev/null --post-data= http://127.0.0.1:5001/api/v0/id 2>/dev/null || [ "$tries" = 0 ]; do
  tries=$((tries - 1))
  sleep 1
done
exec "$program" daemon "$@"
