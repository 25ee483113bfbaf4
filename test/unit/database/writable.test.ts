import { expect, test } from "vitest";
import type { PostgresPool } from "../../../src/database/postgres.ts";
import { findWriteFault, watchWrites, writeFaultOf } from "../../../src/database/writable.ts";
import { OperatorError } from "../../../src/errors.ts";

function sent(code: string): Error {
  return Object.assign(new Error(`PostgreSQL says ${code}`), { severity: "ERROR", code });
}

/** A pool whose next answers are given; an Error is thrown. */
function poolOf(answers: (Error | readonly Record<string, unknown>[])[]) {
  const asked: string[] = [];
  const answer = async (sql: string) => {
    asked.push(sql);
    const next = answers.shift() ?? [{ recovering: false }];
    if (next instanceof Error) throw next;
    return next as never;
  };
  const pool: PostgresPool = {
    query: answer,
    transaction: (work) => work({ query: answer }),
    connections: () => ({ open: 1, idle: 1, waiting: 0 }),
    close: async () => {},
  };
  return { pool, asked };
}

test("only a full disk and a server that reads are faults of writing", () => {
  expect(writeFaultOf(sent("53100"))).toBe("disk-full");
  expect(writeFaultOf(sent("25006"))).toBe("read-only");
  expect(writeFaultOf(sent("53300"))).toBeNull();
  expect(writeFaultOf(new Error("53100"))).toBeNull();
  const lost = new OperatorError({ exit: "unavailable", what: "Lost.", cause: sent("53100") });
  expect(writeFaultOf(lost)).toBe("disk-full");
});

test("a server in recovery takes no writes; a limit of temporary files says nothing", async () => {
  expect(await findWriteFault(async () => [{ recovering: true }])).toBe("read-only");
  expect(await findWriteFault(() => Promise.reject(sent("53400")))).toBeNull();
  await expect(findWriteFault(() => Promise.reject(sent("57P01")))).rejects.toThrow("57P01");
});

test("space is asked for once in 15 s, and a full disk each time", async () => {
  const clock = { ms: 0 };
  const { pool, asked } = poolOf([[{}], sent("53100"), sent("53100")]);
  const { check } = watchWrites(pool, () => clock.ms);
  await check(100);
  clock.ms = 14_999;
  await check(100);
  expect(asked).toHaveLength(1);
  clock.ms = 15_000;
  for (let time = 0; time < 2; time += 1)
    await expect(check(100)).rejects.toMatchObject({
      what: "PostgreSQL can't write: its disk is full",
      remedy: expect.stringContaining("Free space") as string,
    });
  await check(100);
  expect(asked).toHaveLength(4);
});

test.each([
  ["statement", (pool: PostgresPool) => pool.query("INSERT")],
  ["transaction", (pool: PostgresPool) => pool.transaction((database) => database.query("INSERT"))],
] as const)("a %s that found the disk full counts for 15 s, whatever the probe says", async (_, write) => {
  const clock = { ms: 0 };
  const { pool, asked } = poolOf([[{}], sent("23505"), sent("53100")]);
  const watched = watchWrites(pool, () => clock.ms);
  await watched.check(100);
  await expect(write(watched.pool)).rejects.toThrow("23505");
  await watched.check(100);
  await expect(write(watched.pool)).rejects.toThrow("53100");
  clock.ms = 14_999;
  await expect(watched.check(100)).rejects.toThrow("its disk is full");
  expect(asked).toHaveLength(3);
  clock.ms = 15_000;
  await watched.check(100);
});
