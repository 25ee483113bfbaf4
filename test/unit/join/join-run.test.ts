import { describe, expect, it } from "vitest";
import { closeJoin, keepWarnings, runJoin, startStopwatch } from "../../../src/join/join-run.ts";
import type { Reporter } from "../../../src/ui/reporter.ts";
import { createJson } from "../../../src/ui/json.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { DESIRED, fileOf, sample } from "../../support/sample-steps.ts";

const VERB = "join-as-master";
const BASE = "/opt/fula-master";
const STEPS = ["docker", "env-file", "postgres"];

/** Runs a join over sample steps, and returns its exit and everything that it printed. */
async function joinOn(
  host: FakeHost,
  {
    dryRun = false,
    show = createLines,
    settings,
  }: {
    dryRun?: boolean;
    show?: typeof createLines | typeof createJson;
    settings?: readonly string[];
  } = {},
) {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const reporter: Reporter = show({ out: write, err: write }, () => 0);
  const world = { host, reporter, questions: null, pid: 7, version: "0.2.0" };
  const flags = { dryRun, yes: true, set: [], adopt: [], ignore: [] };
  const steps = STEPS.map((id) =>
    sample(id, {
      apply: async () => {
        await host.clock.wait(12_000);
        await host.files.writeAtomic(fileOf(id), DESIRED, { mode: 0o644 });
      },
      ...(settings === undefined ? {} : { settings }),
    }),
  );
  // The preflight of the verb counts, too.
  const { elapsedMs } = startStopwatch(world);
  await host.clock.wait(3_000);
  const outcome = await runJoin(world, {
    verb: VERB,
    baseDir: BASE,
    flags,
    journal: "/opt/samples/journal.ndjson",
    since: "2026-01-01T00:00:00.000Z",
    prepare: async () => ({ steps, consents: new Set() }),
  });
  const exit = await closeJoin(world, outcome, {
    verb: VERB,
    baseDir: BASE,
    durationMs: elapsedMs(),
    next: [
      ["Let others join:", "fula-node invite create --name NAME"],
      ["See how it stands:", "fula-node status"],
    ],
  });
  return { exit, text: `${lines.join("\n")}\n` };
}

describe("the screens of a join", () => {
  it("shows the plan of a machine that was never joined, and changes nothing", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("docker"), DESIRED);
    const { exit, text } = await joinOn(host, { dryRun: true });
    expect(exit).toBe("pending");
    expect(text).toMatchInlineSnapshot(`
      "fula-node 0.2.0 · join-as-master · /opt/fula-master (not installed yet)

        + create    the file of env-file
        + create    the file of postgres
        = unchanged docker

        2 changes. Nothing has been changed yet.
      "
    `);
    expect(host.writes).toEqual([]);
  });

  it("shows the plan, each step that changed something, and what to do next", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("docker"), DESIRED);
    host.files.put(fileOf("env-file"), "old");
    const { exit, text } = await joinOn(host);
    expect(exit).toBe("ok");
    expect(text).toMatchInlineSnapshot(`
      "fula-node 0.2.0 · join-as-master · /opt/fula-master (not completely installed)

        ~ repair    write the file of env-file
                    reason: env-file holds other text
        + create    the file of postgres
        = unchanged docker

        2 changes. Nothing has been changed yet.
      env-file: done in 12 s
      postgres: done in 12 s

      Done in 27 s: 2 changes, everything works.
        Let others join:    fula-node invite create --name NAME
        See how it stands:  fula-node status
      "
    `);
  });

  it("calls a box installed whose settings bring something anew", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("env-file"), "old");
    const headerWith = async (settings?: readonly string[]) =>
      (await joinOn(host, { dryRun: true, ...(settings === undefined ? {} : { settings }) })).text.split(
        "\n",
      )[0];
    expect(await headerWith()).toMatch(/\(not completely installed\)$/);
    expect(await headerWith(["PUBLIC_HOST (none) -> a.example (--set)"])).toMatch(/\(installed, changing\)$/);
  });

  it.each([
    [true, "Nothing to do: all 3 things are up to date.\n"],
    [false, "Nothing to do: all 3 things are up to date, and everything works.\n"],
  ])("is one line if there is nothing to do (dry run: %s)", async (dryRun, line) => {
    const host = new FakeHost();
    for (const id of STEPS) host.files.put(fileOf(id), DESIRED);
    expect(await joinOn(host, { dryRun })).toEqual({ exit: "ok", text: line });
  });

  it("has the same keys as before in --json", async () => {
    const { text } = await joinOn(new FakeHost(), { show: createJson });
    const keys = ["baseDir", "changes", "dryRun", "plan", "verb", "version", "warnings"];
    expect(Object.keys(JSON.parse(text) as object).toSorted()).toEqual(keys);
  });
});

describe("the warnings of a preparation", () => {
  const warning = { type: "warning", text: "The clock is not synchronised." } as const;
  const make = () => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    return { lines, ...keepWarnings(createLines({ out: write, err: write }, () => 0)) };
  };

  it("come below the title and above the plan, later ones at once, and none twice", () => {
    const { lines, reporter } = make();
    reporter.listen(warning);
    expect(lines).toEqual([]);
    reporter.note("fula-node 0.2.0");
    reporter.listen({ type: "planned", items: [] });
    reporter.listen(warning);
    reporter.listen({ type: "warning", text: "Another one." });
    expect(lines).toEqual(["fula-node 0.2.0", `Warning: ${warning.text}`, "Warning: Another one."]);
  });

  it("come at the end, once, if the run fails before its plan", () => {
    const { lines, reporter, release } = make();
    reporter.listen(warning);
    release();
    release();
    expect(lines).toEqual([`Warning: ${warning.text}`]);
  });
});
