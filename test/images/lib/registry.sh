# shellcheck shell=bash
# Our registry, and the volume with all that it serves already pulled. The registry's files are written once and served
# read-only: boxes have it as their mirror (box-plain/daemon.json), so `docker pull postgres:16-alpine` there is a real pull.

REGISTRY=fula-node-test-registry
REGISTRY_IMAGE=fula-node-test/registry:2
SEED=fula-node-box-seed

registry_answers() {
  # shellcheck disable=SC2016
  docker exec "$REGISTRY" bash -c 'exec 3<>/dev/tcp/127.0.0.1/5000 && printf "GET /v2/ HTTP/1.0\r\n\r\n" >&3 && head -1 <&3 | grep -q " 200 "'
}

image_id() { docker image inspect --format '{{.Id}}' $REGISTRY_IMAGE; }

# start_registry DIRECTORY MODE
start_registry() {
  docker rm -f "$REGISTRY" >/dev/null 2>&1 || true
  docker run -d --name "$REGISTRY" --label "$LABEL=1" --label "$LABEL.files=$1" --network host --restart unless-stopped \
    -v "$1:/var/lib/registry:$2" $REGISTRY_IMAGE >/dev/null
  wait_until 30 registry_answers || {
    docker logs --tail 20 "$REGISTRY"
    die "the registry did not answer within 30 s"
  }
}

# ensure_registry INPUTS
ensure_registry() {
  local files=$STORE/registry-$1
  if [ ! -d "$files" ]; then
    build_images yes
    timed "push to the registry" fill_registry "$files"
  fi
  [ "$(docker inspect --format "{{index .Config.Labels \"$LABEL.files\"}} {{.Image}} {{.State.Running}}" "$REGISTRY" 2>/dev/null)" = \
    "$files $(image_id) true" ] ||
    timed "start the registry" start_registry "$files" ro
}

# Pushing goes over loopback, which every engine accepts without TLS.
fill_registry() {
  local name pushed
  rm -rf "$1.part"
  mkdir -p "$1.part"
  start_registry "$1.part" rw
  for name in $(names yes); do
    # "library/" is where a mirror looks for names without an owner.
    pushed=127.0.0.1:5000/$name
    [[ $name == */* ]] || pushed=127.0.0.1:5000/library/$name
    docker tag "$name" "$pushed"
    docker push -q "$pushed"
    docker rmi "$pushed"
  done
  docker rm -f "$REGISTRY"
  store registry "$1"
}

# ensure_seed INPUTS: a volume with every served image pulled. A box gets a copy as its /var/lib/docker (test/support/box.ts).
ensure_seed() {
  # Written once the volume is filled: one that was interrupted is never taken for a seed.
  [ "$(cat "$ENGINE/seeded" 2>/dev/null)" != "$1" ] || ! docker volume inspect $SEED >/dev/null 2>&1 || return 0
  # shellcheck disable=SC2046
  timed "pull into the boxes' seed" make_seed $(names yes)
  printf '%s\n' "$1" >"$ENGINE/seeded"
}

make_seed() {
  rm -f "$ENGINE/seeded"
  docker rm -f fula-node-test-seeding >/dev/null 2>&1 || true
  docker volume rm -f $SEED
  docker volume create --label "$LABEL=1" $SEED
  docker run --rm --name fula-node-test-seeding --label "$LABEL=1" \
    --cap-add ALL --device-cgroup-rule 'a *:* rwm' \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    -v $SEED:/var/lib/docker fula-node-box:docker bash -ec '
      dockerd >/tmp/dockerd.log 2>&1 & engine=$!
      for attempt in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
      for image; do docker pull -q "$image"; done
      kill $engine && wait $engine
    ' pull "$@"
}
