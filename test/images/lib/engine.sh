# shellcheck shell=bash
# The test bed's own Docker engine. It runs Debian 13's programs in namespaces of its own (processes, mounts, network,
# control groups), so it neither sees nor needs another engine of this machine, and the kernel removes all of it when its
# first process ends. engine/init says what is in there.

ENGINE=$CACHE/engine
ENGINE_SOCKET=$ENGINE/docker.sock
# The boxes' daemon.json names it (box-plain).
REGISTRY_ADDRESS=198.18.53.1
ENGINE_PACKAGES=docker.io,docker-cli,docker-compose,iptables,iproute2,slirp4netns
# At most 15 characters; two caches on one machine have two engines.
ENGINE_LINK=fnt-$(printf '%s' "$CACHE" | sha256sum | cut -c 1-8)
ENGINE_CGROUP=fula-node-test-${ENGINE_LINK#fnt-}

engine_answers() { docker version --format '{{.Server.Version}}'; }

# The engine's root directory: mounted read-only.
engine_root() { printf '%s/engine-%s\n' "$STORE" "$(hash_of <(printf '%s\n' "$ENGINE_PACKAGES") "$IMAGES/lib/base.sh")"; }

ensure_engine() {
  local root made
  need_packages iproute2 util-linux
  root=$(engine_root)
  # One that was started otherwise than it would be now does not stay.
  made=$root-$(hash_of "$IMAGES/lib/engine.sh" "$IMAGES/engine/init")
  [ "$(cat "$ENGINE/made" 2>/dev/null)" = "$made" ] || stop_engine
  [ -d "$root" ] || timed "unpack Debian's engine" unpack_engine "$root"
  make_clients "$root"
  engine_runs && engine_answers >/dev/null 2>&1 || timed "start the test bed's engine" start_engine "$root"
  printf '%s\n' "$made" >"$ENGINE/made"
}

unpack_engine() {
  need_packages mmdebstrap debian-archive-keyring
  rm -rf --one-file-system "$1.part"
  debian_tree --include="$ENGINE_PACKAGES" trixie "$1.part"
  store engine "$1"
}

# bin/docker always talks to the test bed's engine, whatever the shell says. client/bin/docker is the plain client, for tests
# that say themselves where the engine is (test/support/bed.ts). Both are the same version everywhere.
make_clients() {
  mkdir -p "$ENGINE/bin" "$ENGINE/client/cli-plugins" "$ENGINE/client/bin"
  ln -sfn "$1/usr/bin/docker" "$ENGINE/client/bin/docker"
  ln -sfn "$1/usr/libexec/docker/cli-plugins/docker-compose" "$ENGINE/client/cli-plugins/docker-compose"
  cat >"$ENGINE/bin/docker.new" <<END
#!/bin/sh
unset DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_API_VERSION
export DOCKER_HOST='unix://$ENGINE_SOCKET' DOCKER_CONFIG='$ENGINE/client'
exec '$1/usr/bin/docker' "\$@"
END
  chmod 755 "$ENGINE/bin/docker.new"
  mv "$ENGINE/bin/docker.new" "$ENGINE/bin/docker"
}

# Answers whether the engine's first process lives; a pid that another process has by now does not count.
engine_runs() {
  local pid started
  [ -s "$ENGINE/pid" ] && read -r pid started <"$ENGINE/pid" && [ "$(start_time "$pid")" = "$started" ]
}

start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

start_engine() {
  local net pid
  stop_engine
  net=$(free_network)
  mkdir -p "$ENGINE/data"
  rm -f "$ENGINE_SOCKET" "$ENGINE/ready"
  # The engine keeps running after this run, so it must not inherit the lock. It lacks the capabilities that would affect the
  # machine itself: its limits, its clock and its kernel modules.
  ROOT=$1 CACHE=$CACHE ENGINE=$ENGINE NET=$net LINK=$ENGINE_LINK GROUPS_NAME=$ENGINE_CGROUP REGISTRY=$REGISTRY_ADDRESS \
    setsid nohup setpriv --bounding-set=-sys_resource,-sys_time,-sys_module -- \
    unshare --mount --pid --ipc --fork --kill-child=KILL "$IMAGES/engine/init" >"$ENGINE/log" 2>&1 </dev/null 9>&- &
  pid=$!
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$ENGINE/pid"
  printf '%s\n' "$net" >"$ENGINE/net"
  wait_until 60 is_ready_or_dead || true
  [ -e "$ENGINE/ready" ] || {
    tail -n 20 "$ENGINE/log"
    stop_engine
    die "the test bed's engine did not start; its output is in $ENGINE/log. \`npm run sandbox -- down\` removes it, to start anew"
  }
}

is_ready_or_dead() { [ -e "$ENGINE/ready" ] || ! engine_runs; }

# free_network: the first two numbers of a /16 of this machine's own that no address or route of it reaches, and no name
# server of it has. A default route reaches everything, and does not count.
free_network() {
  local number routes
  for number in {213..249} {140..199}; do
    routes=$(ip -4 route show table all to root "10.$number.0.0/16"
      ip -4 route show table all to match "10.$number.0.0/16" | grep -Ev '^(default|0\.0\.0\.0/[01]|128\.0\.0\.0/1)\b' || true)
    [ -z "$routes" ] && ! grep -q "[[:space:]]10\.$number\." /etc/resolv.conf || continue
    printf '10.%s\n' "$number"
    return
  done
  die "no network 10.N.0.0/16 is free on this machine"
}

# Ends every process of the engine and of its containers, boxes too, and waits until the kernel has removed what was theirs.
stop_engine() {
  wait_until 60 kill_processes || die "processes in the control groups $ENGINE_CGROUP did not stop"
  ! engine_runs || wait_until 60 not_engine_runs || die "the test bed's engine did not stop"
  rm -f "$ENGINE/pid"
  wait_until 30 test ! -e "/sys/class/net/$ENGINE_LINK" || die "the link $ENGINE_LINK did not go"
  wait_until 30 remove_cgroups || die "control groups named $ENGINE_CGROUP did not go"
  detach_disks
}

# The disks of boxes that can lose power are files in there on loop devices (test/support/box-disk.ts).
detach_disks() {
  local device file
  losetup --noheadings --list --output NAME,BACK-FILE 2>/dev/null | while read -r device file; do
    [[ $file != "$ENGINE"/* ]] || losetup --detach "$device"
  done
}

not_engine_runs() { ! engine_runs; }

cgroups() { find /sys/fs/cgroup/{,*/}"$ENGINE_CGROUP" -name cgroup.procs 2>/dev/null || true; }

# Its control groups know every process of the engine, whatever became of the file with its number.
kill_processes() {
  local processes
  # shellcheck disable=SC2046
  # Never 0, which is what a process outside of these namespaces looks like, and would mean our own group.
  processes=$(cat $(cgroups) /dev/null | sort -u | grep -vx 0 || true)
  [ -n "$processes" ] || return 0
  # shellcheck disable=SC2086
  kill -KILL $processes 2>/dev/null || true
  thaw
  return 1
}

# Processes of a container that was paused are frozen, and die only once they are not.
thaw() {
  local group
  for group in /sys/fs/cgroup/{,*/}"$ENGINE_CGROUP"; do
    [ -d "$group" ] || continue
    find "$group" -name freezer.state -exec sh -c 'for file; do echo THAWED >"$file"; done' thaw {} + 2>/dev/null || true
    find "$group" -name cgroup.freeze -exec sh -c 'for file; do echo 0 >"$file"; done' thaw {} + 2>/dev/null || true
  done
}

remove_cgroups() {
  local group left=0
  for group in /sys/fs/cgroup/{,*/}"$ENGINE_CGROUP"; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done
  return $left
}

# What an engine leaves on disk: images, containers, volumes.
empty_engine() {
  stop_engine
  remove "$ENGINE"
}
