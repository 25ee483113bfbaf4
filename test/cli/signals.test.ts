import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { type OnOutputLost, main, watchChanges } from "../../src/main.ts";
import type { Reporter } from "../../src/ui/reporter.ts";
import { eventually } from "../support/cluster-real.ts";

/** A master's directory, whose database takes connections and never answers. */
async function masterThatHangs(): Promise<string> {
  const server = createServer(() => {}).listen(0, "127.0.0.1");
  await once(server, "listening");
  const baseDir = await mkdtemp(join(tmpdir(), "fula-node-drill-"));
  onTestFinished(async () => {
    server.close();
    await rm(baseDir, { recursive: true });
  });
  const values = {
    CLUSTERNAME: "pool-a",
    CLUSTER_PEERNAME: "m1",
    MASTER_ID: "0123456789abcdef".repeat(2),
    POSTGRES_HOST: "127.0.0.1",
    POSTGRES_PORT: (server.address() as AddressInfo).port,
    POSTGRES_PASSWORD: "password-of-the-test",
  };
  const lines = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await writeFile(join(baseDir, ".env"), lines.join(""), { mode: 0o600 });
  return baseDir;
}

/** A verb on a master whose database hangs, as a process that signals reach. */
async function start(...verb: readonly string[]) {
  const baseDir = await masterThatHangs();
  const handlers = new Map<string, { readonly act: (signal: string) => void; readonly stays: boolean }>();
  const exits: number[] = [];
  const said = { stdout: "", stderr: "" };
  const listen = (stays: boolean) => (name: string, act: (signal: string) => void) =>
    void handlers.set(name, { act, stays });
  const double = {
    argv: ["node", "fula-node", ...verb, "--base-dir", baseDir],
    env: {},
    execPath: process.execPath,
    pid: process.pid,
    stdin: { isTTY: false },
    stdout: { isTTY: false, write: (text: string) => ((said.stdout += text), true) },
    stderr: { isTTY: false, write: (text: string) => ((said.stderr += text), true) },
    once: listen(false),
    on: listen(true),
    off: () => undefined,
  };
  const signal = (name: string): void => {
    const handler = handlers.get(name);
    if (handler?.stays === false) handlers.delete(name);
    // Without a handler, the kernel ends the process.
    if (handler === undefined) exits.push(-1);
    handler?.act(name);
  };
  let lose: OnOutputLost = () => {};
  const ended = main({
    process: double as unknown as NodeJS.Process,
    output: { onLost: (handler) => void (lose = handler) },
    version: "0.1.0",
    exit: (exitCode) => void exits.push(exitCode),
  });
  await eventually("it listens for signals", async () => handlers.has("SIGINT") && handlers.has("SIGTERM"));
  return { signal, exits, said, ended, lose: () => lose({ isClosed: false, why: "write EIO" }) };
}

describe.skipIf(process.getuid?.() !== 0)("a signal", () => {
  test("the first one lets drill clean up and end with 26, a second one ends it at once", async () => {
    const { signal, exits, said, ended } = await start("drill", "D2");
    signal("SIGINT");
    expect(exits).toEqual([]);
    expect(said.stderr).toContain(
      "Stopped by SIGINT: it cleans up, then ends. A second signal ends it at once.",
    );
    signal("SIGINT");
    expect(exits).toEqual([130]);
    expect(said.stderr).toContain(
      "Stopped by SIGINT at once. Something that it made may be left:\nthe same command removes it when it runs again.\n",
    );
    signal("SIGTERM");
    expect(exits).toEqual([130, 143]);
    // The double lets it go on: it still ends as after the first signal.
    expect(await ended, said.stderr).toBe(26);
    expect(exits.at(-1)).toBe(26);
    expect(said.stdout).toContain("exit 26).");
    expect(said.stdout + said.stderr).not.toContain("half done");
  });

  test("SIGHUP stops it too, also without any output, and a second one does not cut the clean-up short", async () => {
    const { signal, exits, said, ended, lose } = await start("drill", "D2");
    signal("SIGHUP");
    lose();
    signal("SIGHUP");
    expect(exits).toEqual([]);
    expect(said.stderr).toContain("Stopped by SIGHUP: it cleans up");
    expect(await ended).toBe(26);
    expect(exits).toEqual([26]);
  });

  test.each([
    ["only reads says that nothing was changed", ["migrate", "status"], "Nothing was changed."],
    ["changes something says that it may be half done", ["migrate", "up"], "may be half done"],
    [
      "has not started a change yet says that nothing was changed",
      ["join-as-master", "--dry-run"],
      "Nothing was changed.",
    ],
  ])("to a verb that %s", async (_what, verb, text) => {
    const { signal, exits, said } = await start(...verb);
    signal("SIGINT");
    expect(exits).toEqual([130]);
    const printed = said.stdout + said.stderr;
    expect(printed).toContain(text);
    for (const line of printed.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });
});

test("a change that was started is noted, and still reported", () => {
  const events: string[] = [];
  const given = { listen: ({ type }) => void events.push(type) } as Partial<Reporter> as Reporter;
  const { reporter, hasStarted } = watchChanges(given);
  reporter.listen({ type: "planned", items: [] });
  reporter.listen({ type: "step-started", step: "cli", title: "cli", changes: 1 });
  expect(hasStarted()).toBe(false);
  reporter.listen({ type: "change-started", step: "cli", summary: "install it" });
  expect(hasStarted()).toBe(true);
  expect(events).toEqual(["planned", "step-started", "change-started"]);
});
