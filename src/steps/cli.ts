import gt from "semver/functions/gt.js";
import valid from "semver/functions/valid.js";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { PACKAGE_ENTRIES } from "../settings/layout.ts";
import type { NodeContext } from "../settings/context.ts";

interface Seen {
  /** True if the installed files equal those of the running package. */
  readonly same: boolean;
  readonly current: string | null;
}

type CliChange =
  | (Change & { readonly kind: "install-cli"; readonly from: string; readonly to: string })
  | (Change & { readonly kind: "point-current"; readonly target: string });

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
      "Copies the running package to `cli/VERSION` under the base directory and sets the link `cli/current` to it.",

    async probe(host): Promise<Finding<Seen>> {
      const [running, installed, current] = await Promise.all([
        host.files.hashTree(packageDir, PACKAGE_ENTRIES),
        host.files.hashTree(target, PACKAGE_ENTRIES),
        host.files.readLink(layout.cliCurrent),
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
      const seen = { same: installed !== null && installed === running, current };
      if (installed === null) return { state: "absent", seen, evidence };
      const drift = [
        ...(seen.same ? [] : [`${target} differs from the running package`]),
        ...(current === version ? [] : [`${layout.cliCurrent} points at ${current ?? "nothing"}`]),
      ];
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { same, current } = finding.seen;
      return [...(same ? [] : [install]), ...(current === version ? [] : [point])];
    },

    async apply(change, host) {
      if (change.kind === "install-cli") await host.files.copyTree(change.from, change.to, PACKAGE_ENTRIES);
      else await host.files.link(change.target, layout.cliCurrent);
    },

    async verify(host) {
      const program = `${layout.cliCurrent}/bin/fula-node.js`;
      if ((await host.files.readText(program)) !== null) return;
      throw new OperatorError({ exit: "unhealthy", what: `${program} is missing.`, remedy: "Run again." });
    },
  };
}
