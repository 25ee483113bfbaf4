import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { type Lock, type LockHolder, takeLock } from "../../../src/machine/lock.ts";

const CHILD = fileURLToPath(new URL("../../support/lock-child.ts", import.meta.url));
const HOLDER: LockHolder = { pid: 4711, verb: "join-as-master", since: "2026-01-01T00:00:00.000Z" };

const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
});

/** Starts a process that takes the lock, and gives what it says: "held", or the exit's name. */
async function startTaker(name: string): Promise<{ readonly child: ChildProcess; readonly said: string }> {
  const child = spawn(process.execPath, ["--import", "tsx", CHILD, name, "sweep"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(child);
  const [chunk] = (await once(child.stdout, "data")) as [Buffer];
  return { child, said: chunk.toString().trim() };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

function freshName(): string {
  return `/opt/test-${randomUUID()}`;
}

describe("the lock", () => {
  it("goes to exactly one of many takers", async () => {
    const name = freshName();
    const takers = Array.from({ length: 20 }, (_, pid) => takeLock(name, { ...HOLDER, pid }));
    const results = await Promise.allSettled(takers);
    const held = results.filter(({ status }) => status === "fulfilled");
    expect(held).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toMatchObject({ exit: "locked" });
    }
    await (held[0] as PromiseFulfilledResult<Lock>).value.release();
  });

  it("goes to exactly one of two processes", async () => {
    const name = freshName();
    const said = await Promise.all([startTaker(name), startTaker(name)]);
    expect(said.map((one) => one.said).sort()).toEqual(["held", "locked"]);
  });

  it("names its holder to whoever comes second", async () => {
    const name = freshName();
    const lock = await takeLock(name, HOLDER);
    await expect(takeLock(name, { ...HOLDER, pid: 1 })).rejects.toMatchObject({
      exit: "locked",
      what: `Another run holds the lock on ${name}: join-as-master, process 4711, since ${HOLDER.since}.`,
    });
    await lock.release();
  });

  it("is free at once when its holder was killed", async () => {
    const name = freshName();
    const { child, said } = await startTaker(name);
    expect(said).toBe("held");
    await expect(takeLock(name, HOLDER)).rejects.toMatchObject({
      what: expect.stringContaining(`sweep, process ${child.pid}, since`),
    });
    await kill(child);
    expect(child.signalCode).toBe("SIGKILL");
    const lock = await takeLock(name, HOLDER);
    await lock.release();
  });

  it("is free after its release, and others were never touched", async () => {
    const [name, other] = [freshName(), freshName()];
    const first = await takeLock(name, HOLDER);
    const beside = await takeLock(other, HOLDER);
    await first.release();
    const second = await takeLock(name, HOLDER);
    await expect(takeLock(other, HOLDER)).rejects.toMatchObject({ exit: "locked" });
    await second.release();
    await beside.release();
  });

  it("is released although somebody still hangs on it", async () => {
    const name = freshName();
    const lock = await takeLock(name, HOLDER);
    const clinging = connect({ path: `\0fula-node:${name}`, allowHalfOpen: true });
    clinging.on("error", () => {});
    await once(clinging.resume(), "end");
    await lock.release();
    clinging.destroy();
  });

  it("is refused, too, by a holder that does not say who it is", async () => {
    const name = freshName();
    const silent = createServer((socket) => void socket.end("not JSON"));
    await once(silent.listen(`\0fula-node:${name}`), "listening");
    await expect(takeLock(name, HOLDER)).rejects.toMatchObject({
      exit: "locked",
      what: `Another run holds the lock on ${name}, but did not identify itself.`,
    });
    await new Promise((resolve) => silent.close(resolve));
  });
});
