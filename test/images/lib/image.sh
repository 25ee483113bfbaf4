# shellcheck shell=bash
# Images of the catalogue. Those of boxes are kept as one archive, those that boxes pull as the files of a registry, each
# under a hash of its inputs: an empty engine is loaded from these in half a minute.

# rows YES|NO: the catalogue's rows of images that the registry serves, or does not.
rows() { grep -v -e '^#' -e '^$' "$IMAGES/catalogue" | awk -v served="$1" '$5 == served'; }

names() { rows "$1" | awk '{ print $1 }'; }

label_of() { docker image inspect --format "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null || true; }

# inputs_of YES|NO: changes when anything that goes into those images changes.
inputs_of() {
  local directory module
  hash_of <(
    base_inputs
    rows "$1"
    cat "$IMAGES/lib/image.sh" "$IMAGES/lib/go.sh"
    for directory in $(rows "$1" | awk '{ print $2 }' | sort -u); do
      (cd "$IMAGES" && find "$directory" -type f -print0 | sort -z | xargs -0 sha256sum)
    done
  )
}

# build_images YES|NO: Docker's own cache skips what it made before.
build_images() {
  local official directory argument parent context
  ensure_base
  while read -r official directory argument parent _; do
    [ "$parent" != - ] || parent=$BASE
    context=$ENGINE/context
    rm -rf "$context"
    mkdir -p "$context"
    cp -a "$IMAGES/$directory/." "$context"
    chmod -R a+rX "$context"
    [ ! -x "$context/prepare" ] || timed "prepare $official" "$context/prepare" "$context" "$argument"
    timed "build $official" env DOCKER_BUILDKIT=0 docker build --build-arg PARENT="$parent" --build-arg ARGUMENT="$argument" \
      --label "$LABEL=1" --tag "$official" "$context"
    rm -rf "$context"
  done < <(rows "$1")
}

# The images of boxes, and of the registry.
ensure_box_images() {
  local inputs archive
  inputs=$(inputs_of no)
  archive=$STORE/boxes-$inputs.tar
  # shellcheck disable=SC2046
  [ "$(cat "$ENGINE/boxes" 2>/dev/null)" != "$inputs" ] || ! docker image inspect $(names no) >/dev/null 2>&1 || return 0
  # One that a full disk or a power cut has cut off is made again.
  if tar --list --file "$archive" >/dev/null 2>&1; then
    timed "load the images of boxes" docker load --input "$archive"
  else
    build_images no
    # shellcheck disable=SC2046
    timed "save the images of boxes" docker save --output "$archive.part" $(names no)
    store boxes "$archive"
  fi
  printf '%s\n' "$inputs" >"$ENGINE/boxes"
}
