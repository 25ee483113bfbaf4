/** The state of a box, to compare two moments: if they are equal, nothing was changed in between. */
export interface BoxSnapshot {
  /** By path: kind, mode, owner, time of the last change, and the content's sha256 or the link's target. */
  readonly files: Readonly<Record<string, string>>;
  /** The box's own engine; null if none answers. */
  readonly docker: {
    /** By name: id, start time, state. */
    readonly containers: Readonly<Record<string, string>>;
    readonly volumes: readonly string[];
    /** By name: id. */
    readonly networks: Readonly<Record<string, string>>;
    /** By name and tag: id. */
    readonly images: Readonly<Record<string, string>>;
  } | null;
}

/** A snapshot without the data of kubo and ipfs-cluster of this machine, which they write all the time. */
export function withoutData(snapshot: BoxSnapshot): BoxSnapshot {
  const files = Object.entries(snapshot.files).filter(
    ([path]) => !/^\/opt\/fula-writer\/(kubo|ipfs-cluster)(\/|$)/.test(path),
  );
  return { ...snapshot, files: Object.fromEntries(files) };
}

/**
 * Waits until cron's runs have ended, and keeps the daemon from starting more: a sweep every half hour, and a snapshot every six,
 * would fall into what a test does. systemd still calls it active. It works again once it is restarted.
 */
export const HOLD_CRON = String.raw`
if systemctl is-active --quiet cron; then
  cron=$(systemctl show --property MainPID --value cron)
  kill -STOP "$cron"
  # Held, it leaves those that have ended as zombies.
  while pgrep --parent "$cron" --runstates D,R,S,T >/dev/null; do sleep 0.1; done
fi
`;

/**
 * Prints all parts below, with an empty line after each. It skips paths that do not exist. A join may have started cron: from
 * here on, only the test changes the box.
 */
export const SNAPSHOT_SCRIPT = String.raw`
set -euo pipefail
${HOLD_CRON}
find "$@" -printf '%p\t%y %m %u:%g %T@ %l\n' 2>/dev/null | sort || true
echo
find "$@" -type f -exec sha256sum {} + 2>/dev/null | sed -E 's/^(\S+)  (.*)$/\2\t\1/' || true
echo
if docker version >/dev/null 2>&1; then
  docker ps --all --quiet | xargs -r docker inspect --format '{{.Name}}{{"\t"}}{{.Id}} {{.State.StartedAt}} {{.State.Status}}'
  echo
  docker volume ls --format '{{.Name}}{{"\t"}}' | sort
  echo
  docker network ls --no-trunc --format '{{.Name}}{{"\t"}}{{.ID}}'
  echo
  docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}}{{"\t"}}{{.ID}}'
fi
`;

/** Reads what SNAPSHOT_SCRIPT printed. */
export function parseSnapshot(output: string): BoxSnapshot {
  const [stats = {}, hashes = {}, containers, volumes, networks, images] = splitParts(output);
  const files = Object.fromEntries(
    Object.entries(stats).map(([path, stat]) => [path, `${stat} ${hashes[path] ?? ""}`.trim()]),
  );
  if (!containers || !volumes || !networks || !images) return { files, docker: null };
  return { files, docker: { containers, volumes: Object.keys(volumes), networks, images } };
}

function splitParts(output: string): Record<string, string>[] {
  const parts: Record<string, string>[] = [{}];
  for (const line of output.split("\n")) {
    const [key, value] = line.split("\t");
    if (!key) parts.push({});
    else Object.assign(parts.at(-1) ?? {}, { [key]: value ?? "" });
  }
  return parts;
}
