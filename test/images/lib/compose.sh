# shellcheck shell=bash
# Compose for this machine's own docker command, out of the box image: unit tests take it for the judge of our files.

COMPOSE_PLUGIN=/usr/local/lib/docker/cli-plugins/docker-compose
COMPOSE_BOX=fula-node-box:docker

copy_compose() {
  local container
  container=$(docker create "$COMPOSE_BOX")
  mkdir -p "$(dirname "$COMPOSE_PLUGIN")"
  docker cp "$container:/usr/libexec/docker/cli-plugins/docker-compose" "$COMPOSE_PLUGIN.new" >/dev/null
  docker rm "$container" >/dev/null
  mv "$COMPOSE_PLUGIN.new" "$COMPOSE_PLUGIN"
  touch "$CACHE/compose-is-ours"
}

ensure_compose() {
  docker compose version >/dev/null 2>&1 || timed "copy Compose from $COMPOSE_BOX" copy_compose
}

remove_compose() {
  [ ! -e "$CACHE/compose-is-ours" ] || rm -f "$COMPOSE_PLUGIN"
}
