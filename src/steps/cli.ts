import compare from "semver/functions/compare.js";
import gt from "semver/functions/gt.js";
import lt from "semver/functions/lt.js";
import rcompare from "semver/functions/rcompare.js";
import valid from "semver/functions/valid.js";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { isOurs, PACKAGE_ENTRIES } from "../settings/layout.ts";
import type { NodeContext } from "../settings/context.ts";

interface Seen {
  /** True if the installed files equal those of the running package. */
  readonly same: boolean;
  readonly current: string | null;
  /** Installed versions that nothing goes back to. */
  readonly obsolete: readonly string[];
}

type CliChange =
  | (Change & { readonly kind: "install-cli"; readonly from: string; readonly to: string })
  | (Change & { readonly kind: "point-current"; readonly target: string })
  | (Change & { readonly kind: "remove-cli"; readonly path: string });

/**
 * The version that a rollback from the running version goes back to, see findFormer: the one that the services are of, or the one that
 * was in use, or else the newest older one. A version between them was given up.
 */
export function formerVersion(
  installed: readonly string[],
  { current, serving = null }: { readonly current: string | null; readonly serving?: string | null },
  running: string,
): string | null {
  const older = olderThan(running, installed);
  return [serving, current].find((one) => one !== null && older.includes(one)) ?? older[0] ?? null;
}

/**
 * The oldest version that a service here is of; null if there is none. A join that ended early has set the link, and left services as
 * they were: that version works.
 */
async function findServing({ docker }: HostReader): Promise<string | null> {
  if ((await docker.unreachable()) !== null) return null;
  const images = (await docker.containers()).filter(isOurs).map(({ image }) => image);
  const versions = images.map((image) => image.replace(/^fula-node:/, ""));
  return versions.filter((one) => valid(one) !== null).sort(compare)[0] ?? null;
}

/** Older versions than the running one that nothing goes back to. */
export function obsoleteVersions(
  names: readonly string[],
  running: string,
  former: string | null,
): readonly string[] {
  return olderThan(running, names).filter((name) => name !== former);
}

/** The newest first. */
function olderThan(running: string, names: readonly string[]): readonly string[] {
  return names.filter((name) => valid(name) !== null && lt(name, running)).sort(rcompare);
}

/** Installs the running version under the base directory, because cron cannot rely on npx's cache. */
export function cli(context: NodeContext): StepSpec<Seen, CliChange> {
  const { layout, version, packageDir } = context;
  const target = `${layout.cliDir}/${version}`;
  const install: CliChange = {
    kind: "install-cli",
    summary: `install fula-node ${version} to ${target}`,
    from: packageDir,
    to: target,
  };
  const point: CliChange = {
    kind: "point-current",
    summary: `point the link ${layout.cliCurrent} to ${version}`,
    target: version,
  };
  return {
    id: "cli",
    title: "fula-node itself, for cron jobs and repairs",
    touches:
      "Copies the running package to `cli/VERSION` under the base directory and sets the link `cli/current` to it. Removes versions before the last two.",

    async probe(host): Promise<Finding<Seen>> {
      const [running, installed, current, entries] = await Promise.all([
        host.files.hashTree(packageDir, PACKAGE_ENTRIES),
        host.files.hashTree(target, PACKAGE_ENTRIES),
        host.files.readLink(layout.cliCurrent),
        host.files.list(layout.cliDir),
      ]);
      const evidence = {
        "running package": running ?? "unreadable",
        [target]: installed ?? "absent",
        current: current ?? "absent",
      };
      if (current !== null && valid(current) !== null && gt(current, version)) {
        throw new OperatorError({
          exit: "newer",
          what: `fula-node ${current} is installed here, but this is version ${version}.`,
          why: "An older version does not know what a newer version has created.",
          remedy: `Run ${layout.cliCurrent}/bin/fula-node.js or npx fula-node@${current}.`,
        });
      }
      const installedVersions = entries ?? [];
      const serving = await findServing(host);
      const former = formerVersion(installedVersions, { current, serving }, version);
      const obsolete = obsoleteVersions(installedVersions, version, former);
      const seen = { same: installed !== null && installed === running, current, obsolete };
      if (installed === null) return { state: "absent", seen, evidence };
      const drift = [
        ...(seen.same ? [] : [`${target} differs from the running package`]),
        ...(current === version ? [] : [`${layout.cliCurrent} points at ${current ?? "nothing"}`]),
        ...obsolete.map((old) => `${old} is older than the version before`),
      ];
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { same, current, obsolete } = finding.seen;
      return [
        ...(same ? [] : [install]),
        // Before the link is set: afterwards nobody knows which one was in use.
        ...obsolete.map((old) => {
          const path = `${layout.cliDir}/${old}`;
          return { kind: "remove-cli", summary: `remove ${path}`, path } as const;
        }),
        ...(current === version ? [] : [point]),
      ];
    },

    async apply(change, host) {
      if (change.kind === "install-cli") await host.files.copyTree(change.from, change.to, PACKAGE_ENTRIES);
      else if (change.kind === "point-current") await host.files.link(change.target, layout.cliCurrent);
      else await host.files.remove(change.path);
    },

    async verify(host) {
      const program = `${layout.cliCurrent}/bin/fula-node.js`;
      if ((await host.files.readText(program)) !== null) return;
      throw new OperatorError({ exit: "unhealthy", what: `${program} is missing.`, remedy: "Run again." });
    },
  };
}
