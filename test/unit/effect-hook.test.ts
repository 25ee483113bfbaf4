import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { inLanes } from "../support/crash-matrix.ts";
import {
  effectsOf,
  type Point,
  pointsOf,
  processesOf,
  proveKill,
  readTrace,
  watched,
} from "../support/effects.ts";

const HOOK = `${import.meta.dirname}/../support/effect-hook.cjs`;

/** A run with one effect of most kinds, as the program makes them. */
const PROGRAM = `
import { spawn } from "node:child_process";
import { request } from "node:http";
import { chmod, lchown, mkdir, open, rename, rm, symlink } from "node:fs/promises";
const [base, url] = process.argv.slice(2);
await mkdir(base + "/d", { recursive: true });
await mkdir(base + "/d", { recursive: true });
const temporary = base + "/d/.file.fula-node-tmp." + process.pid + "." + Math.random().toString(16).slice(2, 14);
const file = await open(temporary, "wx", 0o600);
await file.chmod(0o644);
await file.writeFile("content");
await file.sync();
await file.close();
await rename(temporary, base + "/d/file");
const log = await open(base + "/journal.ndjson", "a+", 0o600);
await log.writeFile(JSON.stringify({ phase: "intent", step: "s", change: { kind: "k" }, secret: "hidden" }) + "\\n");
await log.close();
const run = (...words) => new Promise((done) => spawn(words[0], words.slice(1), { stdio: ["ignore", "pipe", "ignore"] }).once("close", done));
await run("sh", "-c", "echo at work; sleep 0.3; touch " + base + "/by-program");
await run("ss", "-V");
const ask = (method, path) => new Promise((done) => request(url + path, { method }, (answer) => answer.resume().once("end", done)).end());
await ask("GET", "/look");
await ask("POST", "/api/v0/id");
await ask("POST", "/pins/one");
await chmod(base + "/d/file", 0o600);
await symlink("file", base + "/d/.link.fula-node-tmp.1.x");
await rename(base + "/d/.link.fula-node-tmp.1.x", base + "/d/link");
const tree = await open(base + "/d", "r");
await tree.chmod(0o700);
for (const name of ["file", "link"]) await lchown(base + "/d/" + name, process.getuid(), process.getgid() + 0);
await tree.chown(process.getuid(), process.getgid());
await tree.close();
await rm(base + "/d/link");
`;

describe("the recorder", () => {
  let directory: string;
  let url: string;
  const asked: string[] = [];
  const server = createServer((request, answer) => {
    asked.push(`${request.method} ${request.url}`);
    answer.end("{}");
  });

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "effects-"));
    await writeFile(`${directory}/program.mjs`, PROGRAM);
    await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    server.close();
    await rm(directory, { recursive: true });
  });

  let runs = 0;
  const run = async (point?: Point) => {
    const base = `${directory}/${(runs += 1)}`;
    const env = { ...process.env, ...watched(HOOK, `${base}.trace`, point) };
    const signal = await new Promise<NodeJS.Signals | null>((done) => {
      execFile(process.execPath, [`${directory}/program.mjs`, base, url], { env }, (error) =>
        done(error === null ? null : (error.signal ?? null)),
      );
    });
    const trace = readFileSync(`${base}.trace`, "utf8").replaceAll(base, "/base");
    return { base, signal, trace };
  };

  it("numbers what changes something, and nothing else, by names that are the same in every run", async () => {
    const [one, two] = [await run(), await run()];
    const port = new URL(url).host;
    const keys = effectsOf(one.trace).map(({ key }) => key);
    expect(keys).toEqual([
      "mkdir /base/d #1",
      "write /base/d/file #1",
      "write /base/journal.ndjson #1",
      expect.stringMatching(/^run sh -c echo at work/),
      `request POST ${port}/pins/one #1`,
      "chmod /base/d/file #1",
      "write /base/d/link #1",
      "give /base/d #1",
      "remove /base/d/link #1",
    ]);
    expect(effectsOf(two.trace).map(({ key }) => key)).toEqual(keys);
    expect(readTrace(one.trace).filter((line) => line.at === "reads")).toEqual([
      { at: "reads", what: "run ss -V" },
      { at: "reads", what: `POST ${port}/api/v0/id` },
    ]);
    expect(one.trace).not.toContain("hidden");
  });

  it("kills the run at every point, and at no other", async () => {
    const clean = await run();
    const base = clean.base;
    const points = pointsOf(effectsOf(readFileSync(`${base}.trace`, "utf8")));
    expect(points).toHaveLength(2 * 9 + 1 + 1);
    await inLanes(points, 4, async (one) => {
      // A box has the same paths in each run; this directory has not.
      const own = `${directory}/${runs + 1}`;
      const point = { ...one, key: one.key.replaceAll(base, own) };
      const { signal, trace } = await run(point);
      expect(signal, one.name).toBe("SIGKILL");
      const text = readFileSync(`${own}.trace`, "utf8");
      const journal = existsSync(`${own}/journal.ndjson`)
        ? readFileSync(`${own}/journal.ndjson`, "utf8")
        : null;
      const alive = processesOf(text).filter(({ pid, started }) => isAlive(pid, started));
      proveKill(point, { exitCode: 137, trace: text, journal, alive });
      const things = existsSync(`${own}/d`) ? readdirSync(`${own}/d`).toSorted() : [];
      if (point.key.startsWith("write") && point.key.includes("/d/file"))
        expect(things.map((name) => name.replace(/\.\d+\.\w+$/, ""))).toEqual(
          point.when === "before" ? [] : [".file.fula-node-tmp"],
        );
      expect(trace.split("\n").filter((line) => line.includes('"kill"'))).toHaveLength(1);
    });
  });

  it("a program that is killed with the run does nothing more; one that is left alone ends its work", async () => {
    const clean = await run();
    const points = pointsOf(effectsOf(readFileSync(`${clean.base}.trace`, "utf8"))).filter(
      ({ when, key }) => when === "during" && key.startsWith("run "),
    );
    expect(points).toHaveLength(2);
    for (const point of points) {
      const own = `${directory}/${runs + 1}`;
      await run({ ...point, key: point.key.replaceAll(clean.base, own) });
      const [, child] = processesOf(readFileSync(`${own}.trace`, "utf8"));
      await expect.poll(() => child !== undefined && isAlive(child.pid, child.started)).toBe(false);
      expect(existsSync(`${own}/by-program`)).toBe(point.children !== true);
    }
  });

  it("a request that was killed before it was made was not made, and in its middle it was", async () => {
    const clean = await run();
    const points = pointsOf(effectsOf(readFileSync(`${clean.base}.trace`, "utf8")));
    for (const point of points.filter(({ key }) => key.startsWith("request "))) {
      asked.length = 0;
      await run(point);
      await expect.poll(() => asked.includes("POST /pins/one")).toBe(point.when !== "before");
    }
  });
});

/** What only reads, or works on a file that is open already: opening it to write was the effect. */
const READING =
  /^(?:access|constants|createReadStream|existsSync|read\w*|realpath|l?stat|statfs|[fl]?statSync|closeSync|writeSync|ftruncateSync|watch|type \w+)$/;

it("knows every call of Node.js by which the program changes files or starts programs", () => {
  const hook = readFileSync(HOOK, "utf8");
  const root = `${import.meta.dirname}/../../src`;
  const sources = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((path) =>
    path.endsWith(".ts"),
  );
  const imports = sources.flatMap((path) => {
    const text = readFileSync(`${root}/${path}`, "utf8");
    return [
      ...text.matchAll(/^import (?!type )([^;]+?) from "node:(?:fs|fs\/promises|child_process)";/gms),
    ].flatMap(([, names = ""]) =>
      names
        .replaceAll(/[{}\s]+/g, " ")
        .split(",")
        .map((name) => name.trim())
        .filter(Boolean),
    );
  });
  const changing = [...new Set(imports)].filter((name) => !READING.test(name));
  expect(changing).toContain("rename");
  const isWatched = (name: string): boolean =>
    [
      `wrapCall("${name}"`,
      `promises.${name} =`,
      `["${name}",`,
      `fs.${name} =`,
      `childProcess.${name} =`,
    ].some((text) => hook.includes(text));
  expect(changing.filter((name) => !isWatched(name))).toEqual([]);
});

/** A zombie has ended. */
function isAlive(pid: number, started: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    return words[19] === started && words[0] !== "Z";
  } catch {
    return false;
  }
}
