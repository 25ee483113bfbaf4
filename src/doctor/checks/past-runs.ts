import type { HostReader } from "../../host.ts";
import { LOCK_DIRECTORY } from "../../machine/lock.ts";
import { age } from "../../units.ts";
import type { DoctorCheck } from "../doctor-check.ts";
import type { Observation } from "../finding.ts";

/** A run that was ended in the middle of a change. One that ended between two of them leaves changes, which `settings` says. */
export const interruptedRun: DoctorCheck = {
  id: "interrupted-run",
  title: "a run that was ended in the middle of a change",
  fine: "no change is begun and not ended",

  async look({ host, layout, repair }) {
    const journal = await host.files.readText(layout.journal);
    const last = journal?.trimEnd().split("\n").at(-1);
    if (last === undefined || last === "") return null;
    const line = parseLine(last);
    if (line?.["phase"] !== "intent") return [];
    const [at, attempt, step] = ["at", "attempt", "step"].map((key) => textOf(line[key]));
    const pid = /-(\d+)$/.exec(attempt ?? "")?.[1];
    const goesOn = pid !== undefined && (await isStillRunning(host, pid, at));
    const evidence = { [layout.journal]: `${at}: the change of the step ${step} was begun and not ended` };
    return goesOn
      ? [
          {
            severity: "note",
            what: `a run goes on now (process ${pid}), at the step ${step}`,
            evidence,
            remedy: null,
          },
        ]
      : [
          {
            severity: "warning",
            what: `the last run was ended in the middle of a change, at the step ${step}`,
            evidence,
            remedy: repair,
          },
        ];
  },
};

/** True while the run that wrote this then goes on. After a boot, another process soon has its id, perhaps one of fula-node. */
async function isStillRunning(
  { files, clock }: Pick<HostReader, "files" | "clock">,
  pid: string,
  then = "",
): Promise<boolean> {
  const [command, uptime] = await Promise.all(
    [`/proc/${pid}/cmdline`, "/proc/uptime"].map((path) => files.readText(path)),
  );
  if (command?.includes("fula-node") !== true) return false;
  const bootedMs = clock.now().getTime() - Number.parseFloat(uptime ?? "") * 1000;
  return !(Date.parse(then) < bootedMs);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "not known";
}

/** A last line that a crash cut off is no JSON: the change before it says the same. */
function parseLine(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return { phase: "intent", step: "of the last line, which was cut off", at: "not known" };
  }
}

/** No run of ours takes this long, but a `drill` and a large restore: those are told, and may go on. */
const LONG_RUN_MS = 3_600_000;

/** A run that has held a lock of this machine for so long that it may hang. */
export const heldLocks: DoctorCheck = {
  id: "locks",
  title: "a run that holds a lock for more than an hour",
  fine: "no run holds a lock for long",

  async look({ host }) {
    const files = (await host.files.list(LOCK_DIRECTORY)) ?? [];
    const nowMs = host.clock.now().getTime();
    const texts = await Promise.all(
      files
        .filter((name) => name.endsWith(".lock"))
        .map((name) => host.files.readText(`${LOCK_DIRECTORY}/${name}`)),
    );
    const holders = texts.map((text) => parseLine(text ?? "")).filter((holder) => holder !== null);
    const found = await Promise.all(
      holders.map(async (holder): Promise<readonly Observation[]> => {
        const [verb, since, name] = ["verb", "since", "name"].map((key) => textOf(holder[key]));
        const pid = Number(holder["pid"]);
        const heldMs = nowMs - Date.parse(since ?? "");
        // The kernel frees the lock of a process that has ended: its file says nothing then.
        const runs = Number.isSafeInteger(pid) && (await isStillRunning(host, String(pid), since));
        if (!runs || !(heldMs > LONG_RUN_MS)) return [];
        return [
          {
            severity: "warning",
            what: `fula-node ${verb} (process ${pid}) holds the lock on ${name} for ${age(heldMs)}`,
            evidence: { [`process ${pid}`]: `${verb}, since ${since}` },
            remedy: `ps -o pid,etime,args -p ${pid}; if it hangs: kill ${pid}. What it was doing is continued by the next run.`,
          },
        ];
      }),
    );
    // A run takes several locks.
    return [...new Map(found.flat().map((one) => [Object.keys(one.evidence)[0], one])).values()];
  },
};

const RECENT_MS = 24 * 3_600_000;

/** Alarms of the last day: what they are about is judged by other checks, and may be over. */
export const recentAlarms: DoctorCheck = {
  id: "alarms",
  title: "alarms of the last day",
  fine: "no alarm in the last day",

  async look({ host, master, kind }) {
    if (master === null || kind === null) return null;
    const text = await host.files.readText(master.alertLog);
    const nowMs = host.clock.now().getTime();
    const recent = (text ?? "").split("\n").filter((line) => {
      const atMs = Date.parse(line.split(" ")[0] ?? "");
      return nowMs - atMs < RECENT_MS;
    });
    const last = recent.at(-1);
    if (last === undefined) return [];
    const sinceMs = nowMs - Date.parse(last.split(" ")[0] ?? "");
    return [
      {
        severity: "note",
        what: `${recent.length === 1 ? "an alarm" : `${recent.length} lines of alarms`} in the last day, the last one ${age(sinceMs)} ago`,
        evidence: { [master.alertLog]: last },
        remedy: `tail -n 20 ${master.alertLog}`,
      },
    ];
  },
};
