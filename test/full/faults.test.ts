import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { splitStatements } from "../../src/database/migration-file.ts";
import { FIRST_JOIN, fulaNode } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { endStateOf } from "../support/end-state.ts";
import {
  expectClean,
  expectClearWords,
  expectConverged,
  joinWith,
  momentOf,
  untilDocker,
  withBox,
} from "../support/fault-boxes.ts";
import { joinKilledAt, lastJournalLine } from "../support/kill-boxes.ts";
import { expectExit, psql } from "../support/master-box.ts";
import { matrix, times } from "./cases.ts";

/** How many changes a first join has on a box with Docker. */
const CHANGES = 16;
/** A little longer than a first join. */
const JOIN_MS = 13_000;

/** The newest line of the journal in words. */
async function whereItWas(box: Box): Promise<string> {
  const { phase, change } = await lastJournalLine(box);
  return `${phase} ${change.kind}`;
}

matrix("join-as-master, killed, and its repair killed too", [
  ...times(6, "at moments chosen by the seed", (random) =>
    withBox("docker", async (box) => {
      const first = momentOf(random, CHANGES - 4);
      expectExit(await joinKilledAt(box, first), 137);
      const places = [await whereItWas(box)];
      const earlier = await endStateOf(box);
      // What is left to do is at least this.
      const [, phase, done] = first.split("|");
      const left = CHANGES - Number(done) - (phase === "done" ? 0 : 1);
      expectExit(await joinKilledAt(box, momentOf(random, Math.max(1, left))), 137);
      places.push(await whereItWas(box));
      await expectConverged(box, earlier);
      return places.join(", then ");
    }),
  ),
]);

matrix("join-as-master, Docker's engine killed under it", [
  ...times(6, "at a moment chosen by the seed", (random) =>
    withBox("docker", async (box) => {
      const moment = momentOf(random, CHANGES);
      const before = (await box.run("pidof dockerd")).stdout;
      const result = await joinWith(box, moment, "kill -KILL $(pidof dockerd)");
      await untilDocker(box);
      expect((await box.run("pidof dockerd")).stdout).not.toBe(before);
      const at = await whereItWas(box);
      // The run may get through: systemd has the engine back after some seconds.
      if (result.exitCode !== 0) expectClearWords(result);
      await expectConverged(box, await endStateOf(box));
      return `${moment.replaceAll("|", " ")}: exit code ${result.exitCode}, last ${at}`;
    }),
  ),
]);

/** The migrations, each with one of the statements that no other one has. */
function migrationStatements(
  random: () => number,
): readonly { readonly file: string; readonly statement: string; readonly number: number }[] {
  const files = readdirSync("migrations").filter((name) => /^\d+_[a-z_0-9]+\.sql$/.test(name));
  const all = files.toSorted().map((file) => ({
    file,
    statements: splitStatements(readFileSync(`migrations/${file}`, "utf8")).map(({ text }) => text.trim()),
  }));
  return all.map(({ file, statements }) => {
    const others = all.filter((other) => other.file !== file).flatMap((other) => other.statements);
    const own = statements.filter(
      (one) => !one.includes("|") && !others.some((other) => other.includes(one)),
    );
    const statement = own[Math.floor(random() * own.length)];
    if (statement === undefined) throw new Error(`${file} has no statement of its own`);
    return { file, statement, number: statements.indexOf(statement) + 1 };
  });
}

/** A kill takes a minute: what is restarted after each crash waits longer each time. */
const KILL_SHARES = 4;

matrix(
  "join-as-master, Postgres killed under it",
  Array.from({ length: KILL_SHARES }, (_, share) => ({
    name: `in each migration, after one of its statements, share ${share + 1} of ${KILL_SHARES}`,
    run: (random) =>
      withBox("docker", async (box) => {
        const exits = new Set<number>();
        const cases = migrationStatements(random).filter((_one, index) => index % KILL_SHARES === share);
        for (const { file, statement } of cases) {
          const result = await joinWith(box, `next|${statement}`, "pkill -KILL -x postgres");
          expect((await lastJournalLine(box)).change.kind, file).toBe("migrate");
          expectClearWords(result);
          exits.add(result.exitCode);
          // Docker waits longer after each crash, up to a minute. A start by hand begins anew.
          await box.run("docker restart postgres-pinning");
          expect(await ledgerState(box, Number(file.slice(0, 3))), file).toBe("applying");
        }
        await expectConverged(box, await endStateOf(box));
        const places = cases.map(({ file, number }) => `${Number(file.slice(0, 3))}/${number}`);
        return `after migration/statement ${places.join(" ")}: exit codes ${[...exits].join(", ")}`;
      }),
  })),
);

/** What the ledger says of a migration, when Postgres is back. */
async function ledgerState(box: Box, version: number): Promise<string> {
  const wait = "until docker exec postgres-pinning pg_isready -q -h 127.0.0.1; do sleep 0.2; done";
  await box.run(wait, { timeoutMs: 60_000 });
  return await psql(box, `SELECT state FROM fula_node.migrations WHERE version = ${version}`);
}

matrix("join-as-master, two at once and one killed", [
  ...times(4, "at a moment chosen by the seed", (random) =>
    withBox("docker", async (box) => {
      const afterMs = random() * JOIN_MS;
      const runs = [fulaNode(box, FIRST_JOIN), fulaNode(box, FIRST_JOIN)];
      const early = await Promise.race([
        ...runs.map(async (run) => (await run).exitCode),
        sleep(afterMs, null),
      ]);
      // The one without the lock ends at once, so the other one is killed, if it has not ended.
      await box.exec("pkill -KILL -f 'fula-node.js join-as-master'");
      const results = await Promise.all(runs);
      const codes = results.map(({ exitCode }) => exitCode).toSorted((a, b) => a - b);
      expect([0, 25, 137], JSON.stringify(results)).toEqual(expect.arrayContaining(codes));
      for (const result of results) if (result.exitCode === 25) expectClearWords(result);
      const earlier = await endStateOf(box);
      await expectConverged(box, earlier);
      return `${Math.round(afterMs)} ms: exit codes ${codes.join(" and ")}${early === null ? "" : ", one had ended"}`;
    }),
  ),
  ...times(2, "while a third one starts", (random) =>
    withBox("docker", async (box) => {
      const holder = joinKilledAt(box, momentOf(random, CHANGES));
      await eventually("it has the lock", async () => {
        const { stdout } = await box.exec("cat /run/fula-node/*.lock");
        return stdout.includes("join-as-master");
      });
      const codes: number[] = [];
      // Others try again and again, until one gets the lock of the killed one and ends the work.
      for (;;) {
        const result = await fulaNode(box, FIRST_JOIN);
        codes.push(result.exitCode);
        if (result.exitCode === 0) break;
        expectExit(result, 25);
        expectClearWords(result);
      }
      expectExit(await holder, 137);
      await expectClean(box, await endStateOf(box));
      return `${codes.length} others, ${codes.filter((code) => code === 25).length} of them refused`;
    }),
  ),
]);
