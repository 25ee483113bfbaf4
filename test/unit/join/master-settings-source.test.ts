import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { readMasterSettings } from "../../../src/join/settings-source.ts";
import type { FileStat } from "../../../src/machine/file-reader.ts";
import type { World } from "../../../src/world.ts";

const ENV_FILE = "/opt/fula-master/.env";

function world(options: {
  readonly text?: string | null;
  readonly uid?: number;
  /** What the file system says about the file. */
  readonly stat?: FileStat;
  readonly failure?: Error;
  readonly hostname?: string;
  readonly environment?: Readonly<Record<string, string>>;
}): World {
  const readText = (): Promise<string | null> =>
    options.failure === undefined ? Promise.resolve(options.text ?? null) : Promise.reject(options.failure);
  return {
    host: {
      system: { uid: () => options.uid ?? 0 },
      files: { readText, stat: () => Promise.resolve(options.stat ?? null) },
    },
    hostname: options.hostname ?? "box",
    environment: options.environment ?? {},
  } as unknown as World;
}

async function refusal(work: () => unknown): Promise<OperatorError> {
  try {
    await work();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

describe("readMasterSettings", () => {
  it("takes flags over .env over the environment over defaults", async () => {
    const text = "KEEP=1\nPOSTGRES_DB=saved\n";
    const environment = { WEBUI_PORT: "3002", POSTGRES_DB: "shell", KEEP: "2" };
    const { settings, problems } = await readMasterSettings(
      world({ text, environment }),
      ENV_FILE,
      new Map([["KEEP", "3"]]),
    );
    expect(problems).toEqual([]);
    expect(["KEEP", "WEBUI_PORT", "POSTGRES_DB", "REPL_MIN"].map((key) => settings.get(key))).toEqual([
      { value: "3", origin: "flag" },
      { value: "3002", origin: "environment" },
      { value: "saved", origin: "saved" },
      { value: "2", origin: "default" },
    ]);
  });

  it("takes nothing from the environment in a verb that is not a join: KEEP=1 must not prune snapshots", async () => {
    const environment = { KEEP: "1", POSTGRES_HOST: "db.example" };
    const { settings, warnings } = await readMasterSettings(world({ environment }), ENV_FILE, "none");
    expect(settings.get("KEEP")).toEqual({ value: "28", origin: "default" });
    expect(settings.get("POSTGRES_HOST")).toEqual({ value: "127.0.0.1", origin: "default" });
    expect(warnings.map((text) => text.split(" ")[0])).toEqual(["POSTGRES_HOST", "KEEP"]);
  });

  it.each([
    [
      { uid: 1000, mode: 0o600 },
      `${ENV_FILE} belongs to user 1000, not to root`,
      `chown root:root ${ENV_FILE}`,
    ],
    [{ uid: 0, mode: 0o660 }, `its group can write to ${ENV_FILE} (mode 660)`, `chmod go-w ${ENV_FILE}`],
  ])("does not trust a file that somebody else could have written: %o", async (stat, sentence, repair) => {
    const file = { kind: "file", sizeBytes: 0, modifiedAt: new Date(0), ...stat } as const;
    const error = await refusal(() =>
      readMasterSettings(world({ text: "KEEP=1\n", stat: file }), ENV_FILE, new Map()),
    );
    expect(error).toMatchObject({
      exit: "preflight",
      what: `The settings in ${ENV_FILE} can't be trusted: ${sentence}.`,
      remedy: expect.stringContaining(repair),
    });
  });

  it("reports conflicts together with the problems of single keys", async () => {
    const { problems } = await readMasterSettings(
      world({ text: "KEEP=none\nWEBUI_PORT=6000\n" }),
      ENV_FILE,
      new Map([["TYPO", "x"]]),
    );
    expect(problems.map(({ subject }) => subject)).toEqual(["TYPO", "KEEP", "WEBUI_PORT"]);
  });

  it.each([
    ["box-1.example", "box-1.example"],
    ["-b\u00F6x", "b-x"],
    ["---", "master"],
    ["x".repeat(80), "x".repeat(64)],
  ])("names the peer of the host %s", async (hostname, name) => {
    const { settings, problems } = await readMasterSettings(world({ hostname }), ENV_FILE, new Map());
    expect(problems).toEqual([]);
    expect(settings.get("CLUSTER_PEERNAME")).toEqual({ value: name, origin: "default" });
  });

  it("refuses a file that is not valid with its line number, without showing the line", async () => {
    const error = await refusal(() =>
      readMasterSettings(world({ text: "KEEP=1\nPOSTGRES_PASSWORD='hush\n" }), ENV_FILE, new Map()),
    );
    expect(error.exit).toBe("settings");
    expect(error.what).toBe(
      "Line 2 of /opt/fula-master/.env is not valid: POSTGRES_PASSWORD can't be read: the quote at the start of its value is never closed.",
    );
    expect(error.remedy).toBeDefined();
    expect(JSON.stringify([error, error.message])).not.toContain("hush");
  });

  it("refuses a file that can't be read as one of settings, and keeps the cause", async () => {
    const failure = new OperatorError({
      exit: "unavailable",
      what: "Cannot read it.",
      why: "it is not UTF-8 text",
    });
    const error = await refusal(() => readMasterSettings(world({ failure }), ENV_FILE, new Map()));
    expect([error.exit, error.what, error.why, error.cause]).toEqual([
      "settings",
      "/opt/fula-master/.env exists, but can't be read.",
      "it is not UTF-8 text",
      failure,
    ]);
  });

  it("does not change an error that is a bug", async () => {
    const failure = new TypeError("a bug");
    await expect(readMasterSettings(world({ failure }), ENV_FILE, new Map())).rejects.toBe(failure);
  });

  it("does not look at .env without root", async () => {
    const failure = new Error("not to be read");
    const { problems } = await readMasterSettings(world({ uid: 1000, failure }), ENV_FILE, new Map());
    expect(problems).toEqual([]);
  });
});
