# shellcheck shell=bash
# A Go command that can fetch the toolchain a go.mod asks for (1.21 was the first), and CGO-free builds with it.

go_command() {
  local go minor
  for go in go /usr/local/go/bin/go "$CACHE/go/usr/lib/go-1.24/bin/go"; do
    minor=$("$go" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if [ "${minor:-0}" -ge 21 ]; then
      command -v "$go"
      return
    fi
  done
  return 1
}

ensure_go() {
  ! go_command >/dev/null || return 0
  need_packages mmdebstrap debian-archive-keyring
  timed "unpack Debian's Go" mmdebstrap --variant=extract --include=golang-1.24-go,golang-1.24-src \
    trixie "$CACHE/go" "deb http://deb.debian.org/debian trixie main"
}

# go_build MODULE-DIRECTORY OUTPUT-DIRECTORY PACKAGE...
go_build() {
  local module=$1 output=$2 go
  shift 2
  go=$(go_command)
  (cd "$module" && CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN=auto \
    "$go" build -o "$output/" -trimpath -ldflags '-s -w' "$@")
}

# compile_ahead: compiles in the background what the Go images' `prepare` will then only have to link.
compile_ahead() {
  local module scratch=$CACHE/compiled-ahead
  for module in kubo ipfs-cluster; do
    mkdir -p "$scratch/$module"
    "$IMAGES/$module/prepare" "$scratch/$module" -
  done
  rm -rf "$scratch"
}
