import type { HostReader } from "../../host.ts";
import type { InstalledMaster } from "../../join/installed-node.ts";
import type { Files } from "../../machine/file-writer.ts";
import { type Alarm, type AlarmChannels, type AlarmSent, raiseAlarm } from "../../pinset/alerts.ts";
import { parseDrillRecord, renderDrillRecord } from "../../pinset/drill-record.ts";
import { utcSeconds } from "../../units.ts";
import { countStates } from "./drill-lines.ts";
import type { DrillResult } from "./run-drills.ts";

/** Keeps the last result of each drill for `status`. A record that can't be read begins anew. */
export async function recordDrills(
  files: Pick<Files, "readText" | "writeAtomic">,
  { layout, values }: InstalledMaster,
  results: readonly DrillResult[],
  /** True if D7 ran ALERT_COMMAND. */
  ranCommand: boolean,
): Promise<void> {
  if (results.length === 0) return;
  const before = parseDrillRecord(await files.readText(layout.drillRecord)) ?? {};
  const now = results.map(
    ({ id, title, state, at, summary }) => [id, { title, state, at, summary }] as const,
  );
  const text = renderDrillRecord(before, Object.fromEntries(now), {
    command: values("ALERT_COMMAND"),
    ranCommand,
  });
  await files.writeAtomic(layout.drillRecord, text, { mode: 0o600 });
}

/** Raises one alarm if a drill failed. Null if none did. */
export async function alarmOfDrills(
  { clock }: Pick<HostReader, "clock">,
  channels: AlarmChannels,
  results: readonly DrillResult[],
): Promise<AlarmSent | null> {
  const failed = results.filter(({ state }) => state === "failed");
  if (failed.length === 0) return null;
  const at = clock.now();
  const alarm: Alarm = {
    kind: "drill-failed",
    at,
    summary: `${failed.length} of ${results.length} drills failed: ${failed.map(({ id, title }) => `${id} ${title}`).join(", ")}`,
    counts: countStates(results),
    worst: failed.map(({ id, title, summary, todo }) => ({ id, title, summary, todo })),
    lines: failed.map(
      ({ id, title }) => `${utcSeconds(at)} drill-failed drill=${id} title=${title.replaceAll(" ", "-")}`,
    ),
  };
  return raiseAlarm(channels, alarm);
}
