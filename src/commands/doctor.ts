import { examine, type Diagnosis } from "../doctor/examine.ts";
import { countSeverities, exitOf } from "../doctor/finding.ts";
import { linesOfFindings } from "../doctor/screen-of-findings.ts";
import { EXIT_CODES, type VerbExit } from "../errors.ts";
import { requireRoot } from "../join/base-dir.ts";
import { monotonic } from "../status/collect.ts";
import type { World } from "../world.ts";

/** The flags of `doctor`, as commander returns them. */
export interface DoctorFlags {
  readonly baseDir?: string;
  readonly verbose: boolean;
}

/** `doctor`: everything that is wrong with this machine and its node, with what to do about it. Changes nothing. */
export async function doctor(flags: DoctorFlags, world: World): Promise<VerbExit> {
  requireRoot(world.host, "the settings contain secrets");
  return report(await examine(flags.baseDir, world, monotonic), flags, world);
}

function report(
  diagnosis: Diagnosis,
  { verbose }: DoctorFlags,
  { reporter, version }: Pick<World, "reporter" | "version">,
): VerbExit {
  const { title, findings } = diagnosis;
  const exit = exitOf(findings);
  reporter.result({
    data: {
      verb: "doctor",
      version,
      ...diagnosis,
      counts: countSeverities(findings),
      exit,
      exitCode: EXIT_CODES[exit],
    },
    lines: linesOfFindings(`fula-node ${version} · doctor · ${title}`, findings, {
      table: (rows) => reporter.table(rows),
      wrap: (text) => reporter.wrap(text),
      verbose,
    }),
  });
  return exit;
}
