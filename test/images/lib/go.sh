# shellcheck shell=bash
# The Go programs of the images, kept by what they are compiled from: compiling takes minutes, copying does not.

# A Go command that can fetch the toolchain a go.mod asks for (1.21 was the first).
go_command() {
  local go minor
  for go in go /usr/local/go/bin/go "$STORE/go/debian/usr/lib/go-1.24/bin/go"; do
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
  need_packages mmdebstrap debian-archive-keyring ca-certificates
  timed "unpack Debian's Go" bootstrap --variant=extract --include=golang-1.24-go,golang-1.24-src \
    trixie "$STORE/go/debian" "deb $DEBIAN/debian trixie main"
}

# programs_of MODULE: the directory that holds, or will hold, what is compiled from it.
programs_of() {
  local module=$IMAGES/$1
  printf '%s/programs-%s-%s\n' "$STORE" "$1" "$(hash_of "$module/go.mod" "$module/go.sum" "$module/commands" "$IMAGES/lib/go.sh")"
}

# compile_programs MODULE...: each module's `commands` lists its packages.
compile_programs() {
  local go module target
  go=$(go_command)
  for module in "$@"; do
    target=$(programs_of "$module")
    [ ! -d "$target" ] || continue
    rm -rf "$target.part"
    # shellcheck disable=SC2046
    (cd "$IMAGES/$module" && CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN=auto \
      GOMODCACHE=$STORE/go/modules GOCACHE=$STORE/go/cache GOTMPDIR=$STORE/go \
      "$go" build -o "$target.part/" -trimpath -ldflags '-s -w' $(cat commands))
    store "programs-$module" "$target"
  done
}

# Where tests find the programs, whatever they were compiled from.
link_programs() {
  local module
  mkdir -p "$ENGINE/programs"
  for module in "$@"; do ln -sfn "$(programs_of "$module")"/* "$ENGINE/programs/"; done
}
