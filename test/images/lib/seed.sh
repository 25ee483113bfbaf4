# shellcheck shell=bash
# A volume with every served image already pulled. A box gets a copy of it as its /var/lib/docker (test/support/box.ts).

SEED=fula-node-box-seed

# ensure_seed INPUTS IMAGE...
ensure_seed() {
  local inputs=$1
  shift
  [ "$(docker volume inspect --format "{{index .Labels \"$LABEL.inputs\"}}" $SEED 2>/dev/null)" != "$inputs" ] || return 0
  timed "pull into the boxes' seed" make_seed "$inputs" "$@"
}

# Filled under another name and then renamed (by copying nothing but the label): a half-filled seed is never taken for one.
make_seed() {
  local inputs=$1
  shift
  docker rm -f fula-node-test-seeding >/dev/null 2>&1 || true
  docker volume rm -f $SEED >/dev/null
  docker volume create --label "$LABEL=1" --label "$LABEL.inputs=$inputs" $SEED
  docker run --rm --name fula-node-test-seeding --label "$LABEL=1" \
    --cap-add ALL --cap-drop SYS_RESOURCE --device-cgroup-rule 'a *:* rwm' \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    -v $SEED:/var/lib/docker fula-node-box:docker bash -ec '
      dockerd >/tmp/dockerd.log 2>&1 & engine=$!
      for attempt in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
      for image; do docker pull -q "$image"; done
      kill $engine && wait $engine
    ' pull "$@" || {
    docker volume rm -f $SEED
    return 1
  }
}
