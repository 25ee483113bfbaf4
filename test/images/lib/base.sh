# shellcheck shell=bash
# Trees of Debian 13 made from its packages; the smallest one is the layer that every image shares.

BASE=fula-node-test/debian:trixie
DEBIAN=http://deb.debian.org

# bootstrap OPTION...: mmdebstrap mounts /proc and more inside what it makes. In namespaces of its own, these go with it even
# when it is killed.
bootstrap() {
  mkdir -p "$CACHE/tmp"
  TMPDIR=$CACHE/tmp unshare --mount --pid --fork --kill-child=KILL --mount-proc mmdebstrap "$@"
}

# debian_tree OPTION... SUITE TARGET
debian_tree() {
  local suite=${*: -2:1}
  bootstrap --variant=minbase \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$@" \
    "deb $DEBIAN/debian $suite main" \
    "deb $DEBIAN/debian $suite-updates main" \
    "deb $DEBIAN/debian-security $suite-security main"
}

# The label's name counts too: an image that carries another one is not known as ours.
base_inputs() { hash_of <(printf '%s\n' "$LABEL") "$IMAGES/lib/base.sh"; }

ensure_base() {
  local inputs
  inputs=$(base_inputs)
  [ "$(label_of $BASE "$LABEL.inputs")" != "$inputs" ] || return 0
  need_packages mmdebstrap debian-archive-keyring
  timed "build $BASE" build_base "$inputs"
}

build_base() {
  local tar=$STORE/base-$1.tar
  if [ ! -s "$tar" ]; then
    debian_tree --format=tar trixie "$tar.part"
    store base "$tar"
  fi
  docker import -c 'CMD ["bash"]' -c "LABEL $LABEL=1 $LABEL.inputs=$1" "$tar" $BASE
}
