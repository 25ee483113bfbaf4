import { type Diagnosis, examine, redactorOf } from "../doctor/examine.ts";
import { countSeverities, exitOf, type Finding, sortFindings } from "../doctor/finding.ts";
import { linesOfFindings } from "../doctor/screen-of-findings.ts";
import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import { requireRoot } from "../join/base-dir.ts";
import { storageLayout } from "../settings/layout.ts";
import { monotonic } from "../status/collect.ts";
import { decimalBytes } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `doctor`, as commander returns them. */
export interface DoctorFlags {
  readonly baseDir?: string;
  readonly verbose: boolean;
  readonly fix: boolean;
  readonly yes: boolean;
  readonly bundle?: string;
}

/**
 * `doctor`: everything that is wrong with this machine and its node, with what to do about it. Changes nothing; with `--fix`, it
 * runs the repairs of a join, and then shows what is still wrong. `--bundle` writes an archive for support.
 */
export async function doctor(flags: DoctorFlags, world: World): Promise<VerbExit> {
  requireRoot(world.host, "the settings contain secrets");
  refuseSilentFix(flags, world);
  if (flags.bundle !== undefined) await (await import("../doctor/bundle-file.ts")).requirePlace(flags.bundle);
  const before = await examine(flags.baseDir, world, monotonic);
  const fix = flags.fix ? await repair(before, flags, world) : null;
  const isLookedAtAgain = fix !== null && fix.hasRun;
  const after = isLookedAtAgain ? await examine(flags.baseDir, world, monotonic) : before;
  const findings = sortFindings([...(fix?.findings ?? []), ...after.findings]);
  const diagnosis = { ...after, findings };
  const lines = linesOf(diagnosis, flags.verbose, world);
  const written = flags.bundle === undefined ? null : await tryWriteTo(flags.bundle, diagnosis, world);
  const failure = written instanceof OperatorError ? written : null;
  const bundle = written instanceof OperatorError ? null : written;
  const exit = exitOf(findings);
  const ending = failure?.exit ?? exit;
  await world.reporter.close();
  world.reporter.result({
    data: {
      verb: "doctor",
      version: world.version,
      ...diagnosis,
      counts: countSeverities(findings),
      ...(fix === null ? {} : { fix: { before: before.findings, join: fix.data } }),
      ...(bundle === null ? {} : { bundle }),
      exit: ending,
      exitCode: EXIT_CODES[ending],
    },
    lines: [...(fix?.lines ?? []), ...lines, ...(bundle === null ? [] : linesOfBundle(bundle, world))],
  });
  // After the findings: they are what the operator asked for, and some of them may be repaired by now.
  if (failure !== null) throw isLookedAtAgain ? failure.withChanged(REPAIRED) : failure;
  return exit;
}

const REPAIRED =
  "what the repair did, which is printed above; the journal in the base directory lists every change.";

function linesOf(
  { title, findings }: Diagnosis,
  verbose: boolean,
  { reporter, version }: Pick<World, "reporter" | "version">,
): readonly string[] {
  return linesOfFindings(`fula-node ${version} · doctor · ${title}`, findings, {
    table: (rows) => reporter.table(rows),
    wrap: (text) => reporter.wrap(text),
    verbose,
  });
}

/** Without a terminal nobody can say yes. */
function refuseSilentFix({ fix, yes }: DoctorFlags, { questions }: World): void {
  if (!fix || yes || questions !== null) return;
  throw new OperatorError({
    exit: "preflight",
    what: "--fix changes this machine, and there is no terminal to ask on.",
    remedy: "Read what fula-node doctor prints, then run fula-node doctor --fix --yes.",
  });
}

/** What a repair did. */
interface Repaired {
  /** False if there was nothing to repair. */
  readonly hasRun: boolean;
  /** Printed above what is still wrong. */
  readonly lines: readonly string[];
  /** A repair that stopped is wrong, too. */
  readonly findings: readonly Finding[];
  readonly data: unknown;
}

/** Runs the join of the installed node with the settings that it has: the same code as the verb, without new settings. */
async function repair(
  { kind, baseDir, findings }: Diagnosis,
  { yes }: DoctorFlags,
  given: World,
): Promise<Repaired> {
  if (kind === null)
    throw new OperatorError({
      exit: "settings",
      what: "There is no node on this machine that could be repaired.",
      why: findings.find(({ id }) => id === "node")?.what ?? "No node was found.",
      remedy: "Make this machine a node with fula-node join-as-master or fula-node join-as-storage-node.",
    });
  if (exitOf(findings) === "ok") return { hasRun: false, lines: [], findings: [], data: null };
  let data: unknown = null;
  let lines: readonly string[] = [];
  const reporter: World["reporter"] = {
    ...given.reporter,
    // The result of this verb has it: --json prints one object.
    result: (result) => {
      data = result.data;
      lines = result.lines;
    },
  };
  const world = { ...given, reporter };
  const flags = { dryRun: false, yes, baseDir, set: [], setFile: [], adopt: [], ignore: [] };
  try {
    if (kind === "master") {
      const { joinAsMaster } = await import("./join-as-master.ts");
      await joinAsMaster({ ...flags, provisionWriter: false, replace: [] }, world);
    } else {
      const { joinAsStorageNode } = await import("./join-as-storage-node.ts");
      // A node that was joined with --no-register has announced nothing, and a repair registers nothing.
      const register = (await world.host.files.stat(storageLayout(baseDir).announced)) !== null;
      await joinAsStorageNode({ ...flags, acceptPoolChange: false, allowHttp: false, register }, world);
    }
    return { hasRun: true, lines: [...lines, ""], findings: [], data };
  } catch (thrown) {
    // The operator answered no, or something else is at work: nothing was repaired, so there is nothing to look at again.
    const isCalledOff = thrown instanceof OperatorError && ["pending", "locked"].includes(thrown.exit);
    if (!(thrown instanceof OperatorError) || isCalledOff) throw thrown;
    return { hasRun: true, lines: [], findings: [ofStoppedRepair(thrown)], data: { error: thrown.what } };
  }
}

function ofStoppedRepair({ what, why, remedy, changed, problems }: OperatorError): Finding {
  const listed = problems.map(({ subject, what: one }) => `${subject}: ${one}`);
  return {
    id: "fix",
    severity: "error",
    what: `the repair stopped: ${[what, ...listed].join(" ").replace(/\.$/, "")}`,
    evidence: { changed: changed ?? "nothing", ...(why === undefined ? {} : { why }) },
    remedy: remedy ?? problems[0]?.remedy ?? null,
  };
}

/** The archive that was written. */
interface Bundle {
  readonly path: string;
  readonly sizeBytes: number;
}

/** The archive, or why it could not be written. */
async function tryWriteTo(path: string, diagnosis: Diagnosis, world: World): Promise<Bundle | OperatorError> {
  try {
    return await writeTo(path, diagnosis, world);
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  }
}

async function writeTo(path: string, diagnosis: Diagnosis, world: World): Promise<Bundle> {
  const [{ bundleEntries }, { writeBundle }] = await Promise.all([
    import("../doctor/bundle.ts"),
    import("../doctor/bundle-file.ts"),
  ]);
  const redact = await redactorOf(diagnosis.baseDir, world);
  const lines = linesOf(diagnosis, true, world);
  const entries = bundleEntries(diagnosis, lines, { deps: world, redact, stop: world.stop });
  return { path, sizeBytes: await writeBundle(path, entries, world.host.clock.now()) };
}

function linesOfBundle({ path, sizeBytes }: Bundle, { reporter }: World): readonly string[] {
  return [
    "",
    ...reporter.wrap(
      `Wrote ${path} (${decimalBytes(sizeBytes)}). Secrets and e-mail addresses are taken out; names of machines, addresses and content ids are in it. Look at it before you send it.`,
    ),
  ];
}
