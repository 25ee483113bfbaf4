import { OperatorError, type VerbExit } from "../errors.ts";
import { requireRoot } from "../join/base-dir.ts";
import { findInstalledNode, type NodeKind } from "../join/installed-node.ts";
import { readKnownSecrets } from "../logs/known-secrets.ts";
import { openLogFile } from "../logs/log-file.ts";
import type { LogLine } from "../logs/log-line.ts";
import { readLogs } from "../logs/read-logs.ts";
import { createRedactor, type Redact } from "../logs/redact.ts";
import { chooseSources, sourcesOf } from "../logs/sources.ts";
import { MASTER_BASE_DIR, masterLayout, type MasterLayout } from "../settings/layout.ts";
import { NO_DOCKER } from "../status/look-at-node.ts";
import { visible, visibleJson } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `logs`, as commander returns them. */
export interface LogFlags {
  readonly baseDir?: string;
  readonly since?: string;
  readonly lines?: string;
  readonly follow: boolean;
  readonly json?: boolean;
}

const DEFAULT_LINES = 200;
const MAX_LINES = 1_000_000;

/** `logs [SERVICE...]`: the logs of the node's containers, of cron and of the journal, merged by time. Changes nothing. */
export async function logs(names: readonly string[], flags: LogFlags, world: World): Promise<VerbExit> {
  requireRoot(world.host, "logs and settings contain what other users must not read");
  const since = flags.since === undefined ? null : parseSince(flags.since, world.host.clock.now());
  const lines = parseLines(flags.lines, since !== null);
  const { kind, layout } = await findNode(flags.baseDir, world);
  const sources = chooseSources(sourcesOf(kind, layout), names);
  const redact = createRedactor(await readKnownSecrets(world.host, layout, world.environment));
  const width = Math.max(...sources.map(({ name }) => name.length));
  const { reporter, stop, write } = world;
  const missing = (source: string, why: string): void => {
    const warning = `${source}: ${redact(why)}`;
    // With --json, everything is a line of its own.
    if (flags.json === true) write(`${visibleJson({ warning })}\n`);
    else reporter.listen({ type: "warning", text: warning });
  };
  const query = { since, lines, follow: flags.follow, signal: stop, missing, areNamed: names.length > 0 };
  for await (const line of readLogs(sources, { host: world.host, openLogFile }, query))
    if (flags.json === true || line.text.trim() !== "")
      write(flags.json === true ? jsonOf(line, redact) : textOf(line, width, redact));
  await reporter.close();
  return "ok";
}

function jsonOf({ atMs, source, text }: LogLine, redact: Redact): string {
  return `${visibleJson({ at: new Date(atMs).toISOString(), source, text: redact(text) })}\n`;
}

function textOf({ atMs, source, text }: LogLine, width: number, redact: Redact): string {
  const at = new Date(atMs).toISOString();
  return `${at} ${source.padEnd(width)} ${visible(redact(text).replaceAll("\t", "  "), { oneLine: true })}\n`;
}

const UNITS_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `90s`, `10m`, `2h`, `3d`, or a time as ISO 8601. Throws (`usage`) for anything else. */
export function parseSince(text: string, now: Date): Date {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count !== undefined)
    return new Date(now.getTime() - Number(count) * UNITS_MS[unit as keyof typeof UNITS_MS]);
  const at = /^\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d)?)?$/.test(text) ? new Date(text) : null;
  if (at !== null && !Number.isNaN(at.getTime())) return at;
  throw new OperatorError({
    exit: "usage",
    what: `--since ${JSON.stringify(text.slice(0, 40))} is not a time.`,
    remedy: "Give an age such as 90s, 10m, 2h or 3d, or a time such as 2026-01-31T12:00Z.",
  });
}

/** The last lines of each log. With `--since` and without `--lines`, all lines since then count. */
function parseLines(text: string | undefined, hasSince: boolean): number | null {
  if (text === undefined) return hasSince ? null : DEFAULT_LINES;
  const count = /^\d{1,7}$/.test(text) ? Number(text) : 0;
  if (count > 0 && count <= MAX_LINES) return count;
  throw new OperatorError({
    exit: "usage",
    what: `--lines ${JSON.stringify(text.slice(0, 40))} is not a number from 1 to ${MAX_LINES}.`,
    remedy: `Give how many lines of each log are shown, such as --lines ${DEFAULT_LINES}.`,
  });
}

/** The node whose logs they are: its files say it also while Docker does not run. */
async function findNode(
  baseDir: string | undefined,
  { host }: World,
): Promise<{ readonly kind: NodeKind; readonly layout: MasterLayout }> {
  const byFiles = await findInstalledNode({ ...host, docker: NO_DOCKER }, baseDir);
  const isClear = byFiles.answer !== "none" && byFiles.answer !== "both";
  const { answer, found } = isClear ? byFiles : await findInstalledNode(host, baseDir);
  if (answer !== "none") return { kind: found.kind, layout: masterLayout(found.baseDir) };
  throw new OperatorError({
    exit: "settings",
    what: `No node is installed ${baseDir === undefined ? "on this machine" : `in ${baseDir}`}, so it has no logs.`,
    remedy: `Give its directory: --base-dir DIR (default: ${MASTER_BASE_DIR}).`,
  });
}
