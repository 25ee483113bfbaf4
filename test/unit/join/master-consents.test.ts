import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import type { PlanItem } from "../../../src/engine/events.ts";
import type { OperatorError } from "../../../src/errors.ts";
import type { JoinFlags } from "../../../src/join/join-run.ts";
import { createJson } from "../../../src/ui/json.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { Reporter } from "../../../src/ui/reporter.ts";
import { createTerminal } from "../../../src/ui/terminal.ts";
import type { World } from "../../../src/world.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const FLAGS: JoinFlags = {
  dryRun: true,
  yes: false,
  set: ["CLUSTERNAME=pool"],
  adopt: [],
  replace: [],
  ignore: ["clock"],
  provisionWriter: false,
};

type Show = (streams: { out: (line: string) => void; err: (line: string) => void }) => Reporter;

/** Runs join-as-master on a bare box, and returns everything that was printed, with spaces for line breaks. */
async function printed(
  show: Show,
  flags: Partial<JoinFlags>,
  parts: Partial<World> = {},
  host = bareBox(),
): Promise<string> {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const reporter = show({ out: write, err: write });
  const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
  await joinAsMaster(
    { ...FLAGS, ...flags },
    worldOf(host, { pid: 7, hostname: "box", takeLock, reporter, ...parts }),
  );
  return lines.join(" ").replaceAll(/\s+/g, " ");
}

function bareBox(): FakeStorage {
  const host = new FakeStorage();
  host.strip();
  return host;
}

const asLines: Show = (streams) => createLines(streams, () => 0);

/** The flags that a printed plan asks for. */
const askedIn = (text: string) =>
  [...text.matchAll(/Confirmation required \((--[a-z-]+)\)/g)].map(([, flag]) => flag);

describe("a plan asks for the consents that are missing, and for no other", () => {
  it.each<[Partial<JoinFlags>, readonly string[]]>([
    [{}, ["--yes", "--provision-writer", "--yes"]],
    [{ provisionWriter: true }, ["--yes", "--yes"]],
    [{ yes: true }, ["--provision-writer"]],
    [{ yes: true, provisionWriter: true }, []],
  ])("%j", async (flags, missing) => {
    expect(askedIn(await printed(asLines, flags)), "as lines").toEqual(missing);
    expect(
      askedIn(await printed((streams) => createTerminal(streams, () => 0), flags)),
      "on a terminal",
    ).toEqual(missing);
    const { plan } = JSON.parse(await printed(createJson, flags)) as { readonly plan: readonly PlanItem[] };
    const consents = plan.flatMap(({ consent }) => consent ?? []);
    expect(consents.map(({ flag }) => flag)).toEqual(["--yes", "--provision-writer", "--yes"]);
    expect(consents.filter(({ given }) => !given).map(({ flag }) => flag)).toEqual(missing);
  });

  it("nor for an answer that was given on the terminal before", async () => {
    const asked: string[] = [];
    const questions = {
      confirm: (question: string) => Promise.resolve(asked.push(question) > 0),
      text: (question: string) => Promise.resolve(asked.push(question) > 0 ? "pool" : ""),
    };
    const flags = { dryRun: false, set: [] };
    const byAnswer = await printed(asLines, flags, { questions });
    expect(asked.filter((question) => question.includes("kubo and ipfs-cluster"))).toHaveLength(1);
    expect(askedIn(byAnswer)).toEqual(["--yes", "--yes"]);
    asked.length = 0;
    const byFlag = await printed(asLines, { ...flags, provisionWriter: true }, { questions });
    expect(asked.filter((question) => question.includes("kubo and ipfs-cluster"))).toEqual([]);
    expect(askedIn(byFlag)).toEqual(["--yes", "--yes"]);
    expect(asked.filter((question) => question.startsWith("Install "))).toHaveLength(2);
  });
});

describe("a key that compose passes on from .env, and that programs read differently", () => {
  it("halts a join before its first question and its first write, by name and without the value", async () => {
    const host = bareBox();
    const text = `FULA_PIN_SERVICE_SECRET=ab#cd\nCLUSTER_ANNOUNCEMULTIADDRESS=a$b\nOF_NOBODY=ab#cd\n`;
    host.files.put("/opt/fula-master/.env", text, 0o600);
    const questions = {
      confirm: () => expect.fail("a question was asked"),
      text: () => expect.fail("a question was asked"),
    };
    const join = printed(asLines, { dryRun: false }, { questions }, host);
    const error = await join.then(
      () => expect.fail("nothing was refused"),
      (thrown: unknown) => thrown as OperatorError,
    );
    expect([error.exit, error.changed]).toEqual(["settings", undefined]);
    expect(error.problems.map(({ subject }) => subject)).toEqual([
      "FULA_PIN_SERVICE_SECRET",
      "CLUSTER_ANNOUNCEMULTIADDRESS",
    ]);
    expect(JSON.stringify(error.problems)).not.toMatch(/ab#cd|a\$b/);
    expect(host.writes).toEqual([]);
  });
});
