import { FIRST_JOIN, installArtifact, installRelease010, PROGRAM_010 } from "./artifact.ts";
import { Box } from "./box.ts";
import type { CrashMatrix } from "./crash-matrix.ts";
import { FORMER_PROGRAM, installFormerRelease } from "./former-release.ts";
import { expectExit } from "./master-box.ts";

export const JOURNAL = "/opt/fula-master/journal.ndjson";

export async function bootDocker(): Promise<Box> {
  const box = await Box.boot({ name: "matrix", image: "docker" });
  await installArtifact(box);
  return box;
}

/**
 * A snapshot that was signed, and cut off before it was on record, stays, and the next run takes another one after it. `sequence`: that
 * of the last snapshot of a clean run.
 */
export function anotherSnapshot(sequence: number): NonNullable<CrashMatrix["allowed"]> {
  const next = sequence + 1;
  return {
    at: /^in snapshot take: |^run node .* snapshot take /,
    differences: [
      ...["manifest.json", "manifest.sig", "ndjson.gz"].map(
        (end) =>
          new RegExp(String.raw`^more: file /opt/fula-master/snapshots/pinset-<time>\.${end} #${next}$`),
      ),
      /^changed: file \/opt\/fula-master\/heartbeats\/snapshot-history\.json: .+ -> .+\},\{/,
      /^changed: file \/opt\/fula-master\/heartbeats\/snapshot\.json: .+ -> .+"outcome":"ok".+\(0 before\)/,
      new RegExp(
        String.raw`^changed: file /opt/fula-master/state/snapshot-chain\.json: "sequence": ${sequence}, -> "sequence": ${next},$`,
      ),
    ],
  };
}

/** The first join of a new pool, with its own writer, on a machine with Docker. */
export const FIRST_JOIN_MATRIX: CrashMatrix = {
  name: "join-as-master of a new pool",
  prepare: bootDocker,
  command: FIRST_JOIN,
  allowed: anotherSnapshot(1),
  journal: JOURNAL,
};

/** A run of this version on a master that an older one made. */
function upgradeOf(version: string, install: (box: Box) => Promise<void>, program: string): CrashMatrix {
  return {
    name: `join-as-master of this version on a master of ${version}`,
    async prepare() {
      const box = await bootDocker();
      await install(box);
      expectExit(await box.exec(["node", program, ...FIRST_JOIN]), 0);
      return box;
    },
    ready: untilHealthy,
    command: ["join-as-master", "--yes", "--without-backup"],
    journal: JOURNAL,
  };
}

export const UPGRADE_MATRIX = upgradeOf("0.1.0", installRelease010, PROGRAM_010);
export const FORMER_UPGRADE_MATRIX = upgradeOf("the version before", installFormerRelease, FORMER_PROGRAM);

/** Waits until every container of a box runs, and is healthy if it can say so. */
export async function untilHealthy(box: Box): Promise<void> {
  const format = "{{.State.Status}}{{if .State.Health}} {{.State.Health.Status}}{{end}}";
  const script = `for _ in $(seq 600); do
  docker ps -aq | xargs docker inspect --format '${format}' | grep -qvE '^running( healthy)?$' || exit 0
  sleep 0.2
done; docker ps -a; exit 1`;
  await box.run(script);
}
