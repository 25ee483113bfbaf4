# shellcheck shell=bash
# A Docker engine on this machine: the one that answers, or one of our own.

ENGINE_PID=$CACHE/dockerd.pid

engine_answers() { docker version --format '{{.Server.Version}}'; }

ensure_engine() {
  if ! engine_answers >/dev/null 2>&1; then
    command -v dockerd >/dev/null || need_packages docker.io iptables
    # Debian 13 ships the client apart from the engine.
    command -v docker >/dev/null || need_packages docker-cli
    command -v iptables >/dev/null || need_packages iptables
    timed "start the Docker engine" start_engine
  fi
  bridge_address
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    local pidfile=/var/run/docker.pid
    # A pid file left by a machine that was cut off may name another process by now, or one that is dead but
    # not reaped, which has no program any more.
    [ ! -s $pidfile ] || [[ $(readlink "/proc/$(cat $pidfile)/exe") == */dockerd ]] || rm -f $pidfile
    end_orphan /var/run/docker/containerd/containerd.pid containerd
    # It outlives `up`, so it must not hold up's lock.
    setsid nohup dockerd >"$CACHE/dockerd.log" 2>&1 </dev/null 9>&- &
    echo $! >"$ENGINE_PID"
  fi
  wait_until 60 engine_answers || {
    tail -n 20 "$CACHE/dockerd.log" 2>/dev/null
    die "the Docker engine did not answer within 60 s"
  }
}

# end_orphan PIDFILE PROGRAM: a helper whose engine was killed keeps the next engine from starting.
end_orphan() {
  [ -s "$1" ] || return 0
  local pid
  pid=$(cat "$1")
  if [[ $(readlink "/proc/$pid/exe") == */"$2" ]]; then
    kill "$pid"
    wait_until 30 test ! -e "/proc/$pid/exe" || die "$2 ($pid) did not stop"
  fi
  rm -f "$1"
}

# The boxes' daemon.json names this address, so it has to be the one the engine chose.
bridge_address() {
  local address
  address=$(docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}')
  [ "$address" = 172.17.0.1 ] || die "the engine's bridge has the address ${address:-none}, boxes expect 172.17.0.1"
}

# Stops the engine only if start_engine put it there.
stop_engine() {
  [ -s "$ENGINE_PID" ] || return 0
  local pid
  pid=$(cat "$ENGINE_PID")
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    kill "$pid"
    wait_until 60 test ! -d "/proc/$pid" || die "dockerd ($pid) did not stop"
  fi
  rm -f "$ENGINE_PID"
}
