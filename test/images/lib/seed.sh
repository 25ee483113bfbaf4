# shellcheck shell=bash
# A volume with every served image already pulled. A box gets a copy of it as its /var/lib/docker (test/support/box.ts).

SEED=fula-node-box-seed

# Written once the volume is filled: one that was interrupted is never taken for a seed.
SEEDED=$CACHE/seeded

# ensure_seed INPUTS IMAGE...
ensure_seed() {
  if [ "$(cat "$SEEDED" 2>/dev/null)" != "$1" ] || ! docker volume inspect $SEED >/dev/null 2>&1; then
    timed "pull into the boxes' seed" make_seed "$@"
  fi
}

make_seed() {
  local inputs=$1
  shift
  rm -f "$SEEDED"
  docker rm -f fula-node-test-seeding >/dev/null 2>&1 || true
  docker volume rm -f $SEED
  docker volume create --label "$LABEL=1" $SEED
  docker run --rm --name fula-node-test-seeding --label "$LABEL=1" \
    --cap-add ALL --cap-drop SYS_RESOURCE --device-cgroup-rule 'a *:* rwm' \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    -v $SEED:/var/lib/docker fula-node-box:docker bash -ec '
      dockerd >/tmp/dockerd.log 2>&1 & engine=$!
      for attempt in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
      for image; do docker pull -q "$image"; done
      kill $engine && wait $engine
    ' pull "$@"
  printf '%s\n' "$inputs" >"$SEEDED"
}
