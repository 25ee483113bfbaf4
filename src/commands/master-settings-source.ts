import { OperatorError, type Problem } from "../errors.ts";
import { parseEnvFile } from "../model/env-file.ts";
import { MASTER_SETTINGS } from "../model/master-settings.ts";
import { resolveSettings, type Settings } from "../model/settings.ts";
import type { World } from "./world.ts";

/** Splits `--set KEY=VALUE`; throws (`usage`) for anything else. The value never appears in the error. */
export function parseAssignments(pairs: readonly string[]): ReadonlyMap<string, string> {
  const bad = pairs.filter((pair) => !/^[A-Za-z_][A-Za-z0-9_]*=/.test(pair));
  if (bad.length > 0) {
    throw new OperatorError({
      exit: "usage",
      what: `${bad.length === 1 ? "One --set is" : `${bad.length} --set are`} not of the form KEY=VALUE.`,
      remedy: "For example: --set CLUSTERNAME=my-pool.",
    });
  }
  return new Map(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
}

/**
 * Puts together the settings of a master from flags, environment, `.env` and defaults. Gives every
 * problem at once. Throws (`settings`) where `.env` itself can't be understood.
 */
export async function readMasterSettings(
  world: World,
  envFile: string,
  flags: ReadonlyMap<string, string>,
): Promise<{ readonly settings: Settings; readonly problems: readonly Problem[] }> {
  const text = world.host.system.uid() === 0 ? await world.host.files.readText(envFile) : "";
  const saved = parseEnvFile(text ?? "");
  if (!saved.ok) {
    throw new OperatorError({
      exit: "settings",
      what: `Line ${saved.line} of ${envFile} can't be understood: ${saved.what}.`,
      why: "A setting or a secret could be lost if the file were guessed at.",
      remedy: "Mend that line, or put it behind a #, and run again.",
    });
  }
  const peername = world.hostname.replaceAll(/[^A-Za-z0-9._-]/g, "-").slice(0, 64);
  const specs = MASTER_SETTINGS.map((spec) =>
    spec.key === "CLUSTER_PEERNAME" ? { ...spec, byDefault: peername } : spec,
  );
  const { settings, problems } = resolveSettings(specs, { flags, environment: world.environment, saved });
  return { settings, problems: [...problems, ...compareFactors(settings)] };
}

function compareFactors(settings: Settings): readonly Problem[] {
  const [least, most] = ["CLUSTER_REPLICATION_MIN", "CLUSTER_REPLICATION_MAX"].map((key) =>
    Number(settings.get(key)?.value ?? -1),
  );
  if (least === undefined || most === undefined || most === -1 || (least !== -1 && least <= most)) return [];
  return [
    {
      subject: "CLUSTER_REPLICATION_MIN",
      what: `CLUSTER_REPLICATION_MIN (${least}) is above CLUSTER_REPLICATION_MAX (${most}).`,
      remedy: "Give a minimum that is not above the maximum, or -1 for both.",
    },
  ];
}
