import { expect } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "./artifact.ts";
import { Box, type ExecResult } from "./box.ts";
import { ALL_HEALTHY, expectExit, health, readEnv, rejoin } from "./master-box.ts";

export const KILL_HOOK = "/root/kill-hook.cjs";
/** More changes than any run has. */
const MOST_KILLS = 60;
const SECRETS = [
  "POSTGRES_PASSWORD",
  "SYSTEM_KEY",
  "JWT_SECRET",
  "SESSION_SECRET",
  "ENCRYPTION_KEY",
] as const;

/** Boots a box with the artifact and with the hook that kills a run at a named moment. */
export async function bootForKills(image: "docker" | "plain", network?: string): Promise<Box> {
  const box = await Box.boot({ name: "kill", image, ...(network === undefined ? {} : { network }) });
  await installArtifact(box);
  await box.copyIn(`${import.meta.dirname}/kill-hook.cjs`, KILL_HOOK);
  return box;
}

/** The environment that kills a run of the artifact at this moment (kill-hook.cjs names them). */
export function killedAt(moment: string): { readonly env: Readonly<Record<string, string>> } {
  return { env: { NODE_OPTIONS: `--require ${KILL_HOOK}`, KILL_AT: moment } };
}

/** Runs the first join, and kills it at this moment. */
export function joinKilledAt(box: Box, moment: string): Promise<ExecResult> {
  return fulaNode(box, FIRST_JOIN, killedAt(moment));
}

/** The newest line of a box's journal. */
export async function lastJournalLine(
  box: Box,
): Promise<{ readonly phase: string; readonly change: { readonly kind: string } }> {
  const lines = (await box.readFile("/opt/fula-master/journal.ndjson")).trim().split("\n");
  return JSON.parse(lines.at(-1) ?? "{}") as { phase: string; change: { kind: string } };
}

/** Repeats a command, and kills it at this moment, until it ends by itself. Returns the number of kills. */
export async function walkKills(
  run: () => Promise<ExecResult>,
  afterEach: () => Promise<void>,
): Promise<number> {
  for (let kills = 0; ; kills += 1) {
    const result = await run();
    if (result.exitCode === 0) return kills;
    expectExit(result, 137);
    expect(kills).toBeLessThan(MOST_KILLS);
    await afterEach();
  }
}

/** Remembers the secrets in `.env`, and fails if one of them has changed. */
export function watchSecrets(box: Box): () => Promise<void> {
  const first: Record<string, string> = {};
  return async () => {
    const env: Readonly<Record<string, string>> = await readEnv(box).catch(() => ({}));
    for (const key of SECRETS) {
      const value = env[key];
      if (value !== undefined) expect(value, key).toBe((first[key] ??= value));
    }
  };
}

/** Checks a complete master: everything healthy, nothing to do, nothing created twice, nothing half-written. */
export async function expectMaster(box: Box): Promise<void> {
  expect(await health(box)).toEqual(ALL_HEALTHY);
  expectExit(await rejoin(box, ["--dry-run"]), 0);
  expect((await box.run("docker volume ls -q")).stdout).toBe("fula-master_pgdata");
  expect((await box.run("find /opt -name '*.tmp*' -o -name '.*.fula*'")).stdout).toBe("");
}

/**
 * Repeats a join, and kills it at this moment of its journal, until it ends by itself. The box must be a complete master
 * with its first secrets. Returns the number of kills.
 */
export async function walkJoin(box: Box, phase: "intent" | "done", count: number): Promise<number> {
  const checkSecrets = watchSecrets(box);
  const kills = await walkKills(
    () => joinKilledAt(box, `journal|${phase}|${count}`),
    async () => {
      expect((await lastJournalLine(box)).phase).toBe(phase);
      await checkSecrets();
    },
  );
  await checkSecrets();
  await expectMaster(box);
  return kills;
}
