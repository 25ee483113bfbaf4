#!/bin/sh
# fula-node: kubo's image runs this before every start of the daemon. It also stands before ipfs in the container's PATH.
#
# kubo writes its configuration, which has the peer's private key, without a sync: at `init`, and anew for each
# `ipfs config`. A power cut can leave it empty, and kubo does not start any more. So a synced copy of it is kept, and
# a repository whose first start was cut off is made anew: no daemon has run on it, so nothing is in it.
set -eu
program=/usr/local/bin/ipfs
repo=${IPFS_PATH:-/data/ipfs}
config=$repo/config
copy=$repo/config.fula-node
# There from before `ipfs init` until all that it wrote is on the disk.
unfinished=$repo/first-start.fula-node

is_whole() {
  [ -s "$1" ] && [ "$(tail -n 1 "$1")" = "}" ] && grep -q '"PrivKey": *"[^"]' "$1" &&
    [ "$(tr -d '\000' <"$1" | wc -c)" = "$(wc -c <"$1")" ]
}

halt() {
  echo "fula-node: $1 Nothing was changed. See docs/troubleshooting.md#kubos-configuration-is-empty." >&2
  exit 1
}

repair() {
  # Where a running daemon listens. Left empty by a power cut, each command fails on them.
  rm -f "$repo/api" "$repo/gateway"
  if [ -e "$unfinished" ]; then
    echo "fula-node: the first start of kubo was cut off. Its repository has nothing in it, and is made once more."
    (cd "$repo" && rm -rf config config.* datastore_spec version blocks datastore keystore)
  elif is_whole "$config"; then
    return 0
  elif is_whole "$copy"; then
    echo "fula-node: $config is empty or missing. The copy of it is put back, with the same peer id."
    cp -p "$copy" "$config.restored"
    sync
    mv "$config.restored" "$config"
  elif [ -e "$config" ]; then
    halt "$config is empty or not complete, and there is no copy of it. It has this peer's private key."
  fi
}

case $0 in
*/ipfs)
  # The image asks for the version first. Only once for each start: the container's /tmp is new then.
  if [ "${1:-}" = version ] && mkdir "${TMPDIR:-/tmp}/fula-node.started" 2>/dev/null; then
    repair
  elif [ "${1:-}" = init ] && [ ! -e "$unfinished" ]; then
    [ ! -e "$repo/blocks" ] || halt "$repo has blocks, but no configuration: kubo would make a new peer of it."
    : >"$unfinished"
    sync
  fi
  exec "$program" "$@"
  ;;
esac

# At its first start the image opens kubo's RPC, which asks for no password, and the HTTP gateway on all
# addresses. With host networking these are the machine's own, so both are bound to loopback here.
ipfs config Addresses.API /ip4/127.0.0.1/tcp/5001
ipfs config Addresses.Gateway /ip4/127.0.0.1/tcp/8080
# Only a storage node is told how much it may store.
[ -z "${KUBO_STORAGE_MAX:-}" ] || ipfs config Datastore.StorageMax "$KUBO_STORAGE_MAX"
# The profile `server` keeps away from private addresses; where the pool lives on such, they are let in. Unlike
# the profile default-networking this leaves mDNS off: peers that it finds while kubo still starts are never
# asked for blocks (seen with kubo 0.42).
if [ "${KUBO_PRIVATE_NETWORK:-}" = true ]; then
  ipfs config --json Swarm.AddrFilters '[]'
  ipfs config --json Addresses.NoAnnounce '[]'
  # No public bootstrap peer may be in reach, and ipfs-cluster connects kubo to the others only once, after its own
  # start. So that a restarted kubo finds them again, it notes every minute whom it is connected to.
  ipfs config --json Internal.BackupBootstrapInterval '"1m"'
fi

if ! cmp -s "$config" "$copy"; then
  cp -p "$config" "$copy.new"
  sync
  mv "$copy.new" "$copy"
fi
sync
if [ -e "$unfinished" ]; then
  rm "$unfinished"
  # Else it could come back with a power cut, after blocks have come in.
  sync
fi
