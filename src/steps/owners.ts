import type { Change, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findTreeFaults, judgeOwner, type OwnerFault } from "../machine/owner-check.ts";
import type { GuardedPath } from "../settings/layout.ts";
import { countOf } from "../units.ts";

interface Seen {
  readonly faulty: readonly GuardedPath[];
}

type OwnersChange = Change & {
  readonly kind: "give-to-root";
  readonly path: string;
  readonly tree: boolean;
};

const GROUP_OR_OTHERS_WRITE = 0o022;

/**
 * The owners and modes of what fula-node made: root reads and runs it, so nobody else may change it. What lies above the
 * base directory is not ours: the preflight check `owners` refuses it.
 */
export function owners(paths: readonly GuardedPath[]): StepSpec<Seen, OwnersChange> {
  return {
    id: "owners",
    title: "owners and modes of files",
    touches: "Gives to root what fula-node made there, and takes the right to write from everybody else.",

    async probe(host) {
      const found = await Promise.all(paths.map(async (one) => ({ one, faults: await faultsOf(host, one) })));
      const faulty = found.filter(({ faults }) => faults.length > 0);
      const seen = { faulty: faulty.map(({ one }) => one) };
      const evidence = Object.fromEntries(
        faulty.map(({ one, faults }) => [one.path, faults.map(({ sentence }) => sentence)[0] ?? ""]),
      );
      return faulty.length === 0
        ? { state: "ours", seen, evidence: { looked: countOf(paths.length, "path") } }
        : { state: "drifted", seen, drift: faulty.map(({ faults }) => describe(faults)), evidence };
    },

    plan({ seen: { faulty } }) {
      return faulty.map(({ path, tree = false }) => ({
        kind: "give-to-root",
        summary: `give ${path}${tree ? " and everything in it" : ""} to root alone`,
        path,
        tree,
      }));
    },

    async apply({ path, tree }, host) {
      // From the top down: once a directory is root's, nobody can put a link into it.
      for (const fault of await faultsOf(host, { path, tree })) {
        await host.files.chown(fault.path, 0, 0);
        const stat = await host.files.stat(fault.path);
        if (stat === null || stat.kind === "symlink" || (stat.mode & GROUP_OR_OTHERS_WRITE) === 0) continue;
        await host.files.chmod(fault.path, stat.mode & ~GROUP_OR_OTHERS_WRITE);
      }
    },

    async verify(host) {
      const faults = (await Promise.all(paths.map((one) => faultsOf(host, one)))).flat();
      if (faults.length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${describe(faults)}.`,
        remedy: "Another program changes it. Find that program, then run again.",
      });
    },
  };
}

async function faultsOf(
  host: HostReader,
  { path, tree = false }: GuardedPath,
): Promise<readonly OwnerFault[]> {
  if (tree) return findTreeFaults(host.files, path);
  const stat = await host.files.stat(path);
  const fault = stat === null ? null : judgeOwner(path, stat);
  return fault === null ? [] : [fault];
}

function describe(faults: readonly OwnerFault[]): string {
  const [first] = faults;
  const more = faults.length - 1;
  return `${first?.sentence ?? ""}${more > 0 ? `; the same for ${more} more below it` : ""}`;
}
