# shellcheck shell=bash
# Our registry. Boxes read from the bridge's address; pushing goes over loopback, which every engine accepts without TLS.
# Both are host-network containers over the same files: a published port cannot be reached from other bridge networks.

REGISTRY_IMAGE=fula-node-test/registry:2
SERVED=172.17.0.1:5000
PUSHED=127.0.0.1:5000

is_pushable() { [[ $1 == "$PUSHED"/* ]]; }

# push_name OFFICIAL-NAME: "library/" is where a mirror looks for names without an owner.
push_name() {
  case $1 in
    */*) printf '%s/%s\n' $PUSHED "$1" ;;
    *) printf '%s/library/%s\n' $PUSHED "$1" ;;
  esac
}

# repository_of PUSH-NAME: without the registry and the tag.
repository_of() {
  local name=${1#"$PUSHED/"}
  printf '%s\n' "${name%:*}"
}

registry_answers() { curl -sSf -o /dev/null "http://$1/v2/"; }

# digest_of REPOSITORY TAG: empty when the registry has it not.
digest_of() {
  curl -sS -I -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
    -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$SERVED/v2/$1/manifests/$2" |
    tr -d '\r' | sed -n 's/^docker-content-digest: //Ip'
}

registry_has() { [ -n "$(digest_of "$1" "$2")" ]; }

# cache_has REPOSITORY TAG: the same without asking the registry, which may not run yet.
cache_has() { [ -d "$CACHE/registry/docker/registry/v2/repositories/$1/_manifests/tags/$2" ]; }

# start_registry CONTAINER ADDRESS RESTART-POLICY
start_registry() {
  docker rm -f "$1" >/dev/null 2>&1 || true
  docker run -d --name "$1" --label "$LABEL=1" --network host --restart "$3" \
    -e REGISTRY_HTTP_ADDR="$2" -v "$CACHE/registry:/var/lib/registry" $REGISTRY_IMAGE >/dev/null
  wait_until 30 registry_answers "$2" || {
    docker logs --tail 20 "$1"
    die "the registry did not answer at $2 within 30 s"
  }
}

# Starts the reading registry, also when its image is newer than what runs.
ensure_registry() {
  need_packages curl ca-certificates
  [ "$(docker inspect --format '{{.Image}}{{.State.Running}}' fula-node-test-registry 2>/dev/null)" \
    != "$(docker image inspect --format '{{.Id}}' $REGISTRY_IMAGE)true" ] || return 0
  timed "start the registry" start_registry fula-node-test-registry $SERVED unless-stopped
}

# The second registry runs only while something is pushed or pulled.
with_push_registry() {
  start_registry fula-node-test-push $PUSHED no
  "$@"
  docker rm -f fula-node-test-push >/dev/null
}

pull_image() { with_push_registry pull_and_tag "$@"; }

pull_and_tag() {
  local name=$1 pulled
  pulled=$PUSHED/$(repository_of "$name"):inputs-$2
  docker pull -q "$pulled"
  docker tag "$pulled" "$name"
  docker rmi "$pulled"
}

# push_image PUSH-NAME INPUTS: the second tag tells which inputs the official one was built from.
push_image() { with_push_registry push_both "$@"; }

push_both() {
  local name=$1 marker
  marker=$PUSHED/$(repository_of "$name"):inputs-$2
  docker push -q "$name"
  docker tag "$name" "$marker"
  docker push -q "$marker"
  docker rmi "$marker"
}

# ensure_served OFFICIAL-NAME INPUTS
ensure_served() {
  local name repository digest
  name=$(push_name "$1")
  repository=$(repository_of "$name")
  digest=$(digest_of "$repository" "inputs-$2")
  if [ -z "$digest" ] || [ "$digest" != "$(digest_of "$repository" "${name##*:}")" ]; then
    timed "push $1" push_image "$name" "$2"
  fi
}

# The official name in this machine's own engine too, unless somebody else's image has it.
tag_official() {
  local official=$1 name
  name=$(push_name "$1")
  if ! docker image inspect "$official" >/dev/null 2>&1 || [ "$(label_of "$official" "$LABEL")" = 1 ]; then
    docker tag "$name" "$official"
  else
    say "          $official here is not ours and stays; boxes get ours"
  fi
}
