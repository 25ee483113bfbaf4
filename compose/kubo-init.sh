#!/bin/sh
# fula-node: kubo's image runs this before every start of the daemon.
# At its first start the image opens kubo's RPC, which asks for no password, and the HTTP gateway on all
# addresses. With host networking these are the machine's own, so both are bound to loopback here.
set -e
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

# kubo writes its configuration, which has the peer's private key, anew for each of these and without a sync. A power cut
# then leaves it empty, and kubo does not start any more.
sync
