# shellcheck shell=bash
# One image of the catalogue: built when it is missing or its inputs changed, and served under its official name.

label_of() { docker image inspect --format "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null || true; }

# inputs_of DIRECTORY ARGUMENT PARENT-INPUTS: changes when anything that goes into the image changes.
inputs_of() {
  {
    printf '%s\n' "$2" "$3"
    (cd "$IMAGES/$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -c 1-16
}

# build_image NAME DIRECTORY ARGUMENT PARENT INPUTS
build_image() {
  local name=$1 directory=$2 argument=$3 parent=$4 inputs=$5 context=$CACHE/context/$2-$3
  rm -rf "$context"
  mkdir -p "$context"
  cp -a "$IMAGES/$directory/." "$context"
  [ ! -x "$context/prepare" ] || "$context/prepare" "$context" "$argument"
  docker build --build-arg PARENT="$parent" --build-arg ARGUMENT="$argument" \
    --label "$LABEL=1" --label "$LABEL.inputs=$inputs" --tag "$name" "$context"
  rm -rf "$context"
}

# ensure_image NAME DIRECTORY ARGUMENT PARENT INPUTS: from this engine, from our registry, or built.
ensure_image() {
  local name=$1 inputs=$5
  [ "$(label_of "$name" "$LABEL.inputs")" != "$inputs" ] || return 0
  if is_pushable "$name" && registry_has "$(repository_of "$name")" "inputs-$inputs"; then
    timed "pull $name" pull_image "$name" "$inputs"
  else
    ensure_base
    timed "build $name" build_image "$@"
  fi
}
