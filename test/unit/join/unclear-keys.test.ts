import { describe, expect, it } from "vitest";
import { status } from "../../../src/commands/status.ts";
import { OperatorError } from "../../../src/errors.ts";
import type { TimedPart } from "../../../src/status/collect.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { resolveMaster } from "../../../src/join/resolve-master.ts";
import { resolveStorageNode } from "../../../src/join/resolve-storage.ts";
import { masterLayout, storageLayout } from "../../../src/settings/layout.ts";
import { leaveOn, leavingMaster } from "../../support/leave-boxes.ts";
import { type FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

const RUN = { dryRun: true, yes: true, set: [], adopt: [], replace: [], ignore: [] };
const master = await leavingMaster();
const node = await storageBoxBefore(null);

interface Kind {
  readonly box: FakeStorage;
  readonly envFile: string;
  /** A key that is no setting, and that a document passes on. */
  readonly key: string;
  /** A setting of this kind. */
  readonly setting: string;
  readonly join: (host: FakeStorage) => Promise<unknown>;
}

const KINDS: Readonly<Record<string, Kind>> = {
  master: {
    box: master,
    envFile: "/opt/fula-master/.env",
    key: "FULA_PIN_SERVICE_SECRET",
    setting: "WRITER_DIR",
    join: (host) =>
      resolveMaster({ ...RUN, provisionWriter: false }, masterLayout("/opt/fula-master"), worldOf(host)),
  },
  "storage node": {
    box: node,
    envFile: "/opt/fula-storage/.env",
    key: "CLUSTER_ANNOUNCEMULTIADDRESS",
    setting: "CLUSTERNAME",
    join: (host) =>
      resolveStorageNode(
        { ...RUN, acceptPoolChange: false, allowHttp: false, register: true },
        storageLayout("/opt/fula-storage"),
        worldOf(host),
      ),
  },
};

/** Each is read differently by dotenv and by Compose, or by one of their versions. */
const UNCLEAR = ["ab#cd", "a$b", '"a$b"', '"a\\tb"', "'it\\'s'", "'two\nlines'", "hush\u00A0"];
const CLEAR = ["'ab#cd'", "plain", "plain # comment", "'a $b' # comment", '"it\'s"', ""];

/** `status` shows the settings that no join would accept in its part `settings`, beside the other parts. */
async function statusOn(host: FakeStorage, keys: readonly string[]): Promise<void> {
  const world = worldOf(host);
  let shown: TimedPart | undefined;
  const result = ({ data }: Result): void => {
    shown = (data["parts"] as readonly TimedPart[]).find(({ name }) => name === "settings");
  };
  await status({}, { ...world, reporter: { ...world.reporter, result } });
  const what = shown?.summary ?? "";
  const problems = keys.filter((key) => what.includes(key)).map((subject) => ({ subject, what }));
  if (what.includes("would stop")) throw new OperatorError({ exit: "settings", what, problems });
}

const verbsOf = ({
  join,
  key,
  setting,
}: Kind): Readonly<Record<string, (host: FakeStorage) => Promise<unknown>>> => ({
  join,
  status: (host) => statusOn(host, [key, setting]),
  leave: (host) => leaveOn(host, { dryRun: true }),
});

async function subjectsOf(work: Promise<unknown>): Promise<readonly string[]> {
  try {
    await work;
    return [];
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    expect(thrown.exit).toBe("settings");
    expect(JSON.stringify(thrown.problems)).not.toMatch(/ab#cd|hush/);
    return thrown.problems.map(({ subject }) => subject);
  }
}

describe.each(Object.entries(KINDS))("a %s", (_, kind) => {
  it.each(Object.entries(verbsOf(kind)))(
    "in %s, refuses what programs read differently by name",
    async (_verb, run) => {
      for (const [key, before] of [
        [kind.key, ""],
        [kind.key, "export "],
        [kind.setting, ""],
      ] as const) {
        for (const written of UNCLEAR) {
          for (const feed of ["\n", "\r\n"]) {
            const host = kind.box.copy();
            const text = host.files.textOf(kind.envFile).replace(new RegExp(`^${key}=.*\n`, "m"), "");
            host.files.put(kind.envFile, `${text}${before}${key}=${written}${feed}`, 0o600);
            expect(await subjectsOf(run(host)), `${before}${key}=${written}`).toEqual([key]);
            expect(host.writes).toEqual([]);
          }
        }
      }
    },
  );

  it.each(Object.entries(verbsOf(kind)))(
    "in %s, takes what all programs read in the same way",
    async (_verb, run) => {
      for (const written of CLEAR) {
        const host = kind.box.copy();
        host.files.put(
          kind.envFile,
          `${host.files.textOf(kind.envFile)}export ${kind.key}=${written}\r\n`,
          0o600,
        );
        expect(await subjectsOf(run(host)), written).toEqual([]);
      }
    },
  );

  it.each(Object.entries(verbsOf(kind)))("in %s, refuses a file that can't be parsed", async (_verb, run) => {
    const host = kind.box.copy();
    host.files.put(kind.envFile, `${host.files.textOf(kind.envFile)}no line\n`, 0o600);
    await expect(run(host)).rejects.toMatchObject({
      exit: "settings",
      what: expect.stringMatching(/^Line \d+ of .*\.env is not valid/) as string,
    });
  });
});
