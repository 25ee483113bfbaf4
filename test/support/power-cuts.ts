import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { expect } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "./artifact.ts";
import { Box, type ExecResult } from "./box.ts";
import { plannedChanges } from "./master-box.ts";

/** Files at one moment: sha256 by path, or `empty`. */
type FilesThen = Readonly<Record<string, string>>;
type Seen = string | FilesThen;
interface Line {
  readonly attempt: string;
  readonly phase: string;
  readonly step: string;
  readonly change: { readonly kind: string; readonly summary: string };
}

const OBSERVER = "/observer/acknowledged.cjs";
const JOURNAL = "/opt/fula-master/journal.ndjson";
/** The longest time from a line of the journal to the cut. */
const DELAY_MS = 2500;
/** Lines of the journal up to which a run is let go on, at most. */
const MOST_LINES = 6;
/** Containers that the engine starts again after a cut may not be up yet, and a first start of Postgres can be cut more than once. */
const REPEATED = new Set(["up", "wait", "let-in", "remove-container", "remove-volume"]);
/**
 * The journal can be read before it is synced, so what is seen is no proof yet. A line is on the disk once the next one is there.
 * Files that were seen after a line can be of the next change, whose `done` is on the disk once three more lines are there.
 */
const LINES_AFTER_FILES = 3;

/**
 * Waits for a database that recovers, since a plan cannot see what is in it before, nor that the port is its own. Docker answers before it
 * has started all containers again. One that was never started stays as it is. Goes on after a minute.
 */
const DATABASE_UP = `for i in $(seq 300); do
  state=$(docker inspect --format "{{.State.Status}}" postgres-pinning 2>/dev/null) || exit 0
  case $state in
  running) docker exec postgres-pinning pg_isready -q -h 127.0.0.1 && exit 0 ;;
  created) [ "$i" -lt 25 ] || exit 0 ;;
  esac
  sleep 0.2
done`;

/** Boots a box that can lose power, with the artifact on its disk. */
export async function bootForCuts(dockerVolume: "fresh" | "seeded"): Promise<Box> {
  const box = await Box.boot({ name: "cut", image: "docker", canLosePower: true, dockerVolume });
  await installArtifact(box);
  await box.copyIn(`${import.meta.dirname}/acknowledged.cjs`, OBSERVER);
  // What an operator downloaded earlier is not what is tested.
  await box.run("sync");
  return box;
}

/** A machine whose join is cut off, again and again, and what it had acknowledged by then. */
export class CutJoin {
  readonly #box: Box;
  /** Everything that was seen in all runs. */
  readonly #lines: string[] = [];
  readonly #states: FilesThen[] = [];
  /** How many of them are acknowledged. */
  #ackLines = 0;
  #ackStates = 0;
  /** How many lines the journal had after the cut before. */
  #known = 0;
  #keptLines = 0;
  #keptFiles = 0;

  constructor(box: Box) {
    this.#box = box;
  }

  /** What was seen as acknowledged before a cut, and was there after it, in all cuts. */
  get kept(): string {
    return `${this.#keptLines} lines of the journal, ${this.#keptFiles} files`;
  }

  /** Starts a join, cuts the power at a random moment after it began to change something, and boots. Returns where that was. */
  async cutOnce(random: () => number): Promise<string> {
    const box = this.#box;
    const observer = execa("docker", ["exec", box.container, "node", OBSERVER], { reject: false });
    const seen: Seen[] = [];
    const reader = createInterface({ input: observer.stdout });
    reader.on("line", (text) => seen.push(JSON.parse(text) as Seen));
    await once(reader, "line");

    const run: { ended?: ExecResult } = {};
    const joining = fulaNode(box, FIRST_JOIN).then((result) => (run.ended = result));
    const wanted = 1 + Math.floor(random() * MOST_LINES);
    const linesSeen = (): number => seen.filter((one) => typeof one === "string").length;
    while (linesSeen() < wanted && run.ended === undefined)
      await Promise.race([once(reader, "line"), joining]);
    await Promise.race([sleep(random() * DELAY_MS), joining]);
    // After earlier cuts, few changes may be left: then the cut comes after its end, and nothing of it may be lost.
    const isOver = run.ended?.exitCode === 0;
    expect(isOver ? undefined : run.ended, "the join ended before its moment").toBeUndefined();
    // What was printed by now, and only that, has been seen before the cut.
    const acknowledged = seen.length;
    await box.cutPower();
    if (!isOver) expect((await joining).exitCode, "the join was cut off").not.toBe(0);
    expect((await box.exec("true")).stderr).toContain("is not running");
    await observer;
    this.#remember(seen, acknowledged);

    await box.start();
    const journal = await this.#check();
    return `${journal.phase} ${journal.step} ${journal.change.kind}`;
  }

  /** Everything that is acknowledged is there, nothing is half. Returns the newest line of the journal. */
  async #check(): Promise<Line> {
    const box = this.#box;
    const text = await box.readFile(JOURNAL);
    const lines = text.split("\n").slice(0, -1);
    const kept = lines.filter((line) => line !== "" && isComplete(line));
    expect(kept.slice(0, this.#ackLines)).toEqual(this.#lines.slice(0, this.#ackLines));
    this.#keptLines += this.#ackLines - this.#known;
    // A run that was cut off goes on in the journal, so what it wrote later and nobody saw is part of what comes next.
    this.#lines.splice(0, this.#lines.length, ...kept);
    this.#ackLines = kept.length;
    this.#known = kept.length;

    const { stdout } = await box.run(["node", OBSERVER, "--once"]);
    const now = JSON.parse(stdout) as FilesThen;
    expect(
      Object.keys(now).filter((path) => now[path] === "empty"),
      "empty files",
    ).toEqual([]);
    expect(this.#wentBack(now), "files that are older than acknowledged, or gone").toEqual([]);
    this.#keptFiles += Object.keys(this.#states[this.#ackStates - 1] ?? {}).length;
    this.#states.push(now);
    this.#ackStates = this.#states.length;
    await this.#checkPrograms();
    await this.#checkPlan(kept);
    const newest = kept.at(-1);
    if (newest === undefined) throw new Error("the journal has no line");
    return JSON.parse(newest) as Line;
  }

  #remember(seen: readonly Seen[], count: number): void {
    let after = 0;
    const lines = seen.filter((one) => typeof one === "string");
    const acknowledgedLines = seen.slice(0, count).filter((one) => typeof one === "string").length;
    this.#ackLines = this.#lines.length + Math.max(0, acknowledgedLines - 1);
    this.#lines.push(...lines);
    const offset = this.#states.length;
    for (const [index, one] of [...seen.entries()].toReversed()) {
      if (typeof one === "string") after += index < count ? 1 : 0;
      else if (after >= LINES_AFTER_FILES && this.#ackStates <= offset) {
        const states = seen.slice(0, index + 1).filter((each) => typeof each !== "string").length;
        this.#ackStates = offset + states;
      }
    }
    this.#states.push(...seen.filter((one) => typeof one !== "string"));
    // The first state of a run is empty: it only says that the observer has started.
    this.#states[offset] = this.#states[offset - 1] ?? {};
  }

  /** Each file is as it was acknowledged, or as it was seen later, or has a content that nobody saw. */
  #wentBack(now: FilesThen): readonly string[] {
    const known = this.#states.slice(0, this.#ackStates);
    const acknowledged = known.at(-1) ?? {};
    const later = this.#states.slice(Math.max(0, this.#ackStates - 1));
    return Object.keys(acknowledged).flatMap((path) => {
      const hash = now[path];
      if (later.some((state) => state[path] === hash)) return [];
      if (hash === undefined) return [`${path} is gone`];
      return known.some((state) => state[path] === hash) ? [`${path} is an older one`] : [];
    });
  }

  /** A version that has its name is complete: the same files as in the package that it was installed from. */
  async #checkPrograms(): Promise<void> {
    const versions = "for tree in /opt/fula-master/cli/[0-9]*; do";
    const compare =
      'cd "$tree" && find . -type f ! -name ".*" -exec cmp {} /root/package/{} \\; && [ -s package.json ];';
    const { stdout, stderr } = await this.#box.run(
      `shopt -s nullglob; ${versions} (${compare}) || echo "$tree is not complete"; done`,
    );
    expect(stdout + stderr).toBe("");
  }

  /** No change that is acknowledged as done must be made again. */
  async #checkPlan(kept: readonly string[]): Promise<void> {
    await this.#box.run(DATABASE_UP);
    const planned = await fulaNode(this.#box, [...FIRST_JOIN, "--dry-run", "--json"]);
    // 20: something is left to do.
    expect([0, 20], planned.stderr).toContain(planned.exitCode);
    const done = new Set(
      kept
        .map((line) => JSON.parse(line) as Line)
        .filter(({ phase, change }) => phase === "done" && !REPEATED.has(change.kind))
        .map(({ step, change }) => nameOf(step, change)),
    );
    const again = plannedChanges(planned.stdout)
      .map(({ step, change }) => nameOf(step, change))
      .filter((change) => done.has(change));
    const { plan } = JSON.parse(planned.stdout) as { plan: { step: string; drift?: readonly string[] }[] };
    const why = plan.flatMap(({ step, drift = [] }) => drift.map((line) => `${step}: ${line}`)).join("; ");
    expect(again, `changes that were done and must be made again (${why})`).toEqual([]);
  }
}

function nameOf(step: string, change: Readonly<Record<string, unknown>>): string {
  return `${step}: ${String(change["kind"])}: ${String(change["summary"])}`;
}

/** False for a line that a cut left incomplete; the next run removes it. */
function isComplete(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}
