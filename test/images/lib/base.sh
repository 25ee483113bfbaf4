# shellcheck shell=bash
# The one layer every image shares: a minimal Debian 13, made from Debian's packages.

BASE=fula-node-test/debian:trixie
DEBIAN=http://deb.debian.org

# The label's name counts too: an image that carries another one is not known as ours.
base_inputs() { { printf "%s\n" "$LABEL" && cat "$IMAGES/lib/base.sh"; } | sha256sum | cut -c 1-16; }

ensure_base() {
  local inputs
  inputs=$(base_inputs)
  [ "$(docker image inspect --format "{{index .Config.Labels \"$LABEL.inputs\"}}" $BASE 2>/dev/null)" != "$inputs" ] || return 0
  need_packages mmdebstrap debian-archive-keyring
  timed "build $BASE" build_base "$inputs"
}

build_base() {
  local tar=$CACHE/base-$1.tar
  if [ ! -s "$tar" ]; then
    mmdebstrap --variant=minbase --format=tar \
      --dpkgopt=force-unsafe-io \
      --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      trixie "$tar.part" \
      "deb $DEBIAN/debian trixie main" \
      "deb $DEBIAN/debian trixie-updates main" \
      "deb $DEBIAN/debian-security trixie-security main"
    mv "$tar.part" "$tar"
  fi
  docker import -c 'CMD ["bash"]' -c "LABEL $LABEL=1 $LABEL.inputs=$1" "$tar" $BASE
}
