# shellcheck shell=bash
# Debian packages this machine needs.

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# need_packages NAME...: installs those that are missing.
need_packages() {
  local name missing=()
  for name in "$@"; do is_installed "$name" || missing+=("$name"); done
  [ ${#missing[@]} -eq 0 ] || timed "install ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  [ "$(id -u)" = 0 ] || die "root is needed to install $*"
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt-get update
  apt-get install -y --no-install-recommends "$@" || {
    apt-get update # the lists were older than the mirror
    apt-get install -y --no-install-recommends "$@"
  }
}
