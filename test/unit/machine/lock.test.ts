import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Lock, type LockHolder, takeLock } from "../../../src/machine/lock.ts";

const CHILD = fileURLToPath(new URL("../../support/lock-child.ts", import.meta.url));
const HOLDER: LockHolder = { pid: 4711, verb: "join-as-master", since: "2026-01-01T00:00:00.000Z" };
const isRoot = process.geteuid?.() === 0;

const base = mkdtempSync(join(tmpdir(), "fula-lock-"));
afterAll(() => rmSync(base, { recursive: true }));

let directory = "";
beforeEach(() => (directory = `${base}/${randomUUID()}`));
const take = (name: string, holder = HOLDER): Promise<Lock> => takeLock(name, holder, directory);

const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
});

/** Starts a process that takes the lock, and gives what it says: "held", or the exit's name. */
async function startTaker(
  name: string,
  also = "",
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ readonly child: ChildProcess; readonly said: string }> {
  const argv = ["--import", "tsx", CHILD, name, "sweep", directory, also];
  const child = spawn(process.execPath, argv, { env, stdio: ["pipe", "pipe", "inherit"] });
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

const FULL_DISK = fileURLToPath(new URL("../../support/full-disk-hook.cjs", import.meta.url));

function freshName(): string {
  return `/opt/test-${randomUUID()}`;
}

describe("the lock", () => {
  it("goes to exactly one of many takers", async () => {
    const name = freshName();
    const takers = Array.from({ length: 20 }, (_, pid) => take(name, { ...HOLDER, pid }));
    const results = await Promise.allSettled(takers);
    const held = results.filter(({ status }) => status === "fulfilled");
    expect(held).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toMatchObject({ exit: "locked" });
    }
    await (held[0] as PromiseFulfilledResult<Lock>).value.release();
  });

  it("is held by one at a time while many take and release it", async () => {
    const name = freshName();
    let holders = 0;
    let taken = 0;
    const work = async (): Promise<void> => {
      for (let round = 0; round < 10; round += 1) {
        const lock = await take(name).catch(() => null);
        if (lock === null) continue;
        taken += 1;
        holders += 1;
        expect(holders).toBe(1);
        // Long enough for another taker to finish, if it were not kept out.
        await new Promise((resolve) => setTimeout(resolve, 15));
        holders -= 1;
        await lock.release();
      }
    };
    await Promise.all(Array.from({ length: 8 }, work));
    expect(taken).toBeGreaterThan(1);
  });

  it("goes to exactly one of two processes", async () => {
    const name = freshName();
    const said = await Promise.all([startTaker(name), startTaker(name)]);
    expect(said.map((one) => one.said).sort()).toEqual(["held", "locked"]);
  });

  it("names its holder to whoever comes second", async () => {
    const name = freshName();
    const lock = await take(name);
    await expect(take(name, { ...HOLDER, pid: 1 })).rejects.toMatchObject({
      exit: "locked",
      what: `Another run holds the lock on ${name}: join-as-master, process 4711, since ${HOLDER.since}.`,
      remedy: expect.stringContaining("If it hangs, end it: kill 4711.") as string,
    });
    await lock.release();
  });

  it("is free at once when its holder was killed, although a child of the holder still runs", async () => {
    const name = freshName();
    const { child, said } = await startTaker(name, "sleep");
    const [, pid] = /^held (\d+)$/.exec(said) ?? [];
    await expect(take(name)).rejects.toMatchObject({
      what: expect.stringContaining(`sweep, process ${child.pid}, since`),
    });
    await kill(child);
    expect(child.signalCode).toBe("SIGKILL");
    expect(readFileSync(`/proc/${pid}/comm`, "utf8")).toBe("sleep\n");
    const lock = await take(name);
    await lock.release();
    process.kill(Number(pid), "SIGKILL");
  });

  it("is free after its release, leaves no file, and others were never touched", async () => {
    const [name, other] = [freshName(), freshName()];
    const first = await take(name);
    const beside = await take(other);
    await first.release();
    const second = await take(name);
    await expect(take(other)).rejects.toMatchObject({ exit: "locked" });
    await second.release();
    await beside.release();
    expect(readdirSync(directory)).toEqual([]);
  });

  it("is refused, too, while its holder has not written who it is", async () => {
    const name = freshName();
    const lock = await take(name);
    const [file = ""] = readdirSync(directory);
    writeFileSync(`${directory}/${file}`, "not JSON");
    await expect(take(name)).rejects.toMatchObject({
      exit: "locked",
      what: `Another run holds the lock on ${name}, but did not identify itself.`,
    });
    await lock.release();
  });

  it("is in a directory and a file for its owner only", async () => {
    const lock = await take(freshName());
    const [file = ""] = readdirSync(directory);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(statSync(`${directory}/${file}`).mode & 0o777).toBe(0o600);
    await lock.release();
  });
});

describe("the place of the locks", () => {
  const refused = { exit: "preflight", what: expect.stringContaining("is not root's alone") };

  it("is refused if others can write to it", async () => {
    const open = `${base}/open`;
    mkdirSync(open);
    chmodSync(open, 0o777);
    await expect(takeLock(freshName(), HOLDER, open)).rejects.toMatchObject(refused);
  });

  it.runIf(isRoot)("is refused if it belongs to another user", async () => {
    const foreign = `${base}/foreign`;
    mkdirSync(foreign, { mode: 0o700 });
    chownSync(foreign, 1234, 1234);
    await expect(takeLock(freshName(), HOLDER, foreign)).rejects.toMatchObject(refused);
  });

  it("is refused if it is a link, or no directory", async () => {
    mkdirSync(`${base}/target`, { mode: 0o700 });
    symlinkSync(`${base}/target`, `${base}/link`);
    writeFileSync(`${base}/file`, "");
    await expect(takeLock(freshName(), HOLDER, `${base}/link`)).rejects.toMatchObject(refused);
    await expect(takeLock(freshName(), HOLDER, `${base}/file`)).rejects.toMatchObject(refused);
    expect(readdirSync(`${base}/target`)).toEqual([]);
  });

  it("never has a link instead of a lock's file", async () => {
    const name = freshName();
    const lock = await take(name);
    const [file = ""] = readdirSync(directory);
    await lock.release();
    writeFileSync(`${base}/precious`, "precious");
    symlinkSync(`${base}/precious`, `${directory}/${file}`);
    await expect(take(name)).rejects.toMatchObject({ exit: "unavailable" });
    expect(readFileSync(`${base}/precious`, "utf8")).toBe("precious");
    rmSync(`${directory}/${file}`);
  });

  it("says of a full disk what it is, at each of its writes, and takes the lock when there is space", async () => {
    const env = {
      ...process.env,
      NODE_OPTIONS: `--require ${FULL_DISK}`,
      TSX_DISABLE_CACHE: "1",
      FULL_DISK: `${base}/failed-writes`,
    };
    const name = freshName();
    const said: string[] = [];
    while (said.at(-1) !== "held" && said.length < 6) said.push((await startTaker(name, "", env)).said);
    expect(said).toEqual(["unavailable", "unavailable", "unavailable", "held"]);
    const failed = readFileSync(`${base}/failed-writes`, "utf8").trim().split("\n");
    expect(failed.map((line) => line.split(" ")[0])).toEqual(["mkdir", "open", "write"]);
  });

  it("gives nobody a lock on a file that is not there any more", async () => {
    const name = freshName();
    const lock = await take(name);
    const [file = ""] = readdirSync(directory);
    renameSync(`${directory}/${file}`, `${directory}/moved`);
    const second = await take(name);
    await expect(take(name)).rejects.toMatchObject({ exit: "locked" });
    await second.release();
    rmSync(`${directory}/moved`);
    await lock.release();
  });
});

describe("the socket of an older version", () => {
  const listen = async (name: string) => {
    const server = createServer((socket) => void socket.end("not JSON"));
    await once(server.listen(`\0fula-node:${name}`), "listening");
    return () => new Promise((resolve) => server.close(resolve));
  };

  it.runIf(isRoot)("counts while a process of root's on this machine has it", async () => {
    const name = freshName();
    const close = await listen(name);
    await expect(take(name)).rejects.toMatchObject({
      exit: "locked",
      what: `Another run holds the lock on ${name}: process ${process.pid}, of an older fula-node.`,
    });
    await close();
    await (await take(name)).release();
  });

  it.runIf(isRoot)("does not count if another user has it", async () => {
    const name = freshName();
    const script = `require("net").createServer().listen("\\0fula-node:${name}", () => console.log("listens"))`;
    const child = spawn(process.execPath, ["-e", script], { uid: 1234, gid: 1234, cwd: "/" });
    children.push(child);
    await once(child.stdout, "data");
    await (await take(name)).release();
  });
});
