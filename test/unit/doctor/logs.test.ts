import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { logs, parseSince } from "../../../src/commands/logs.ts";
import { splitFramed, splitPlain } from "../../../src/docker/stream/container-log.ts";
import { OperatorError } from "../../../src/errors.ts";
import { openLogFile } from "../../../src/logs/log-file.ts";
import {
  type LogLine,
  mergeLogs,
  parseTime,
  readCronLine,
  readJournalLine,
  timeLines,
} from "../../../src/logs/log-line.ts";
import { readLogs } from "../../../src/logs/read-logs.ts";
import { createRedactor } from "../../../src/logs/redact.ts";
import { chooseSources, sourcesOf } from "../../../src/logs/sources.ts";
import { masterLayout, NAMES } from "../../../src/settings/layout.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { joinedBox } from "../../support/master-boxes.ts";
import { type FakeStorage, worldOf } from "../../support/storage-fake.ts";

test("a line for people has no tabs, and an empty one is not shown; --json has them", async () => {
  const host = await joinedBox();
  host.docker.logTexts.set(
    NAMES.cluster,
    ["one\tINFO\ttwo", "", "three"].map((text, at) => `2026-01-01T00:00:0${at}Z ${text}`).join("\n"),
  );
  const said = async (json: boolean): Promise<string> => {
    const written: string[] = [];
    const world = {
      ...worldOf(host as FakeStorage),
      write: (text: string) => void written.push(text),
      stop: new AbortController().signal,
    };
    await logs(["ipfs-cluster"], { follow: false, json }, world);
    return written.join("");
  };
  expect((await said(false)).replaceAll(/^\S+ \S+ /gm, "")).toBe("one  INFO  two\nthree\n");
  expect((await said(true)).split("\n").length).toBe(4);
});

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "fula-logs-"));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

async function* of<T>(...items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
const SECRET = "Zk3vQ8s0canaryW7pLm2xT9dRb4nYc6hJq1u";
const redact = createRedactor([SECRET]);
const all = async <T>(items: AsyncIterable<T>): Promise<readonly T[]> => {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
};

describe("times", () => {
  test("keep the digits after the milliseconds", () => {
    const [a, b] = ["2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.1239Z"].map(parseTime);
    expect(a).toBeLessThan(b ?? 0);
    expect(parseTime("2026-01-01T00:00:00Z")).toBe(Date.UTC(2026, 0, 1));
    expect(parseTime("no time")).toBeNull();
  });

  test("a line without one has that of the line before; the first ones that of the first time", async () => {
    const lines = of("lost", "2026-01-01T00:00:00Z one", "  more", "2026-01-01T00:00:05Z two");
    const timed = await all(timeLines("sweep", lines, { read: readCronLine, otherwiseMs: 7 }));
    const at = Date.UTC(2026, 0, 1);
    expect(timed.map(({ atMs, text }) => [atMs - at, text])).toEqual([
      [0, "lost"],
      [0, "one"],
      [0, "  more"],
      [5000, "two"],
    ]);
  });

  test("a log in which nothing has a time is as old as the question", async () => {
    const timed = await all(timeLines("x", of("a", "b"), { read: readCronLine, otherwiseMs: 7 }));
    expect(timed.map(({ atMs }) => atMs)).toEqual([7, 7]);
  });

  test("a line of the journal is told in words; one that was cut off stays", () => {
    const line = {
      at: "2026-01-01T00:00:00.000Z",
      step: "cli",
      phase: "failed",
      change: { summary: "install x" },
      error: "no space",
    };
    expect(readJournalLine(JSON.stringify(line))).toEqual({
      atMs: Date.UTC(2026, 0, 1),
      text: "failed cli: install x (no space)",
    });
    expect(readJournalLine('{"at":')).toEqual({ atMs: null, text: '{"at":' });
  });

  test("--since takes ages and times, and nothing else", () => {
    const now = new Date("2026-01-02T00:00:00Z");
    expect(parseSince("10m", now).toISOString()).toBe("2026-01-01T23:50:00.000Z");
    expect(parseSince("2h", now).toISOString()).toBe("2026-01-01T22:00:00.000Z");
    expect(parseSince("2026-01-01T05:00Z", now).toISOString()).toBe("2026-01-01T05:00:00.000Z");
    for (const wrong of ["", "soon", "10", "-5m", "2026-13-01"])
      expect(() => parseSince(wrong, now), wrong).toThrow(OperatorError);
  });
});

describe("merging", () => {
  const line = (atMs: number, source: string): LogLine => ({ atMs, source, text: "" });

  it("is by time, and reads no further than it must", async () => {
    let read = 0;
    const endless = async function* (): AsyncGenerator<LogLine> {
      for (let at = 0; ; at += 10) {
        read += 1;
        yield line(at, "a");
      }
    };
    const merged = mergeLogs([endless(), of(line(5, "b"), line(15, "b"))], () => {});
    const seen: string[] = [];
    for await (const one of merged) {
      seen.push(`${one.source}${one.atMs}`);
      if (seen.length === 5) break;
    }
    expect(seen).toEqual(["a0", "b5", "a10", "b15", "a20"]);
    expect(read).toBeLessThanOrEqual(4);
  });

  it("goes on without a log that breaks off", async () => {
    const broken = async function* (): AsyncGenerator<LogLine> {
      yield line(1, "a");
      throw new OperatorError({ exit: "unavailable", what: "It broke." });
    };
    const whys: unknown[] = [];
    const merged = mergeLogs([broken(), of(line(2, "b"), line(3, "b"))], (why) => whys.push(why));
    expect((await all(merged)).map(({ source }) => source)).toEqual(["a", "b", "b"]);
    expect(whys).toHaveLength(1);
  });
});

describe("the engine's frames", () => {
  const frame = (stream: number, text: string) => {
    const header = Buffer.alloc(8);
    header[0] = stream;
    header.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([header, Buffer.from(text)]);
  };
  const cut = (whole: Buffer, size: number) =>
    Array.from({ length: Math.ceil(whole.length / size) }, (_, index) =>
      whole.subarray(index * size, (index + 1) * size),
    );
  const AT = "2026-01-01T00:00:00.123456789Z";
  const LATER = "2026-01-01T00:00:01.000000000Z";
  const whole = Buffer.concat([
    frame(1, `${AT} one\n`),
    frame(1, `${AT} a h`),
    frame(2, `${AT} err\n`),
    frame(1, `${AT} al`),
    frame(1, `${AT} f\n`),
    frame(1, `${LATER} énd`),
  ]);

  it.each([1, 3, 7, 1000])("come apart in the same way in chunks of %i bytes", async (size) => {
    const lines = [`${AT} one`, `${AT} err`, `${AT} a half`, `${LATER} énd`];
    expect(await all(splitFramed(of(...cut(whole, size))))).toEqual(lines);
  });

  it("of a terminal are none, and a long line has its time once", async () => {
    const text = `${AT} one\r\n${AT} a h${AT} al${AT} f\r\n${LATER} end`;
    const lines = await all(splitPlain(of(...cut(Buffer.from(text), 50))));
    expect(lines).toEqual([`${AT} one`, `${AT} a half`, `${LATER} end`]);
  });

  it("cut a long line into parts, but no secret in it", async () => {
    const line = `${"x".repeat(16_384 - 18)} ${SECRET} rest`;
    const parts = [line.slice(0, 16_384), `${line.slice(16_384)}\n`];
    const framed = Buffer.concat(parts.map((part) => frame(1, `${AT} ${part}`)));
    const terminal = Buffer.from(parts.map((part) => `${AT} ${part}`).join(""));
    for (const lines of [splitFramed(of(framed)), splitPlain(of(terminal))])
      expect((await all(lines)).map((one) => redact(one).slice(-16))).toEqual([" [redacted] rest"]);
  });
});

describe("a log file", () => {
  const path = () => join(base, "sweep.log");
  const linesOf = async (options: { tail?: number; rotated: number }) => {
    const file = await openLogFile(path(), options);
    const lines = file === null ? null : await all(file.lines());
    await file?.close();
    return lines;
  };

  it("gives its last lines, found from the end, and those of rotated files if it has too few", async () => {
    const many = Array.from({ length: 50_000 }, (_, index) => `line ${index}`);
    writeFileSync(path(), `${many.join("\n")}\n`);
    writeFileSync(`${path()}.1`, "old 1\nold 2\n");
    expect(await linesOf({ tail: 3, rotated: 5 })).toEqual(many.slice(-3));
    expect(await linesOf({ rotated: 5 })).toEqual(["old 1", "old 2", ...many]);
    writeFileSync(path(), "new");
    expect(await linesOf({ tail: 2, rotated: 5 })).toEqual(["old 2", "new"]);
    expect(await linesOf({ tail: 2, rotated: 0 })).toEqual(["new"]);
  });

  it("has no line that is too long to be kept, and no part of it", async () => {
    const time = "2026-01-01T00:00:00Z ";
    // The secret stands where the first 17 chunks of 64 KiB end.
    const long = `${time}${"y".repeat(17 * 65_536 - time.length - 18)}${SECRET}`;
    writeFileSync(path(), `one\n${long}\ntwo\n${"z".repeat(5 * 1024 ** 2)}`);
    const leftOut = "[left out: a line of more than 1 MiB]";
    expect(await linesOf({ rotated: 0 })).toEqual(["one", `${time}${leftOut}`, "two", leftOut]);
    writeFileSync(path(), `${"y".repeat(1024 ** 2)}\n`);
    expect((await linesOf({ rotated: 0 }))?.map(({ length }) => length)).toEqual([1024 ** 2]);
  });

  it("is followed through a rotation and a file that did not exist", async () => {
    const controller = new AbortController();
    const file = await openLogFile(path(), { tail: 10, rotated: 0 });
    const seen: string[] = [];
    const following = (async () => {
      for await (const line of file?.follow(controller.signal) ?? of<string>()) {
        seen.push(line);
        if (line === "one") appendFileSync(path(), "two\nthr");
        if (line === "two") appendFileSync(path(), "ee\n");
        if (line === "three") {
          renameSync(path(), `${path()}.1`);
          writeFileSync(path(), "four\n");
        }
        if (line === "four") controller.abort();
      }
    })();
    setImmediate(() => writeFileSync(path(), "one\n"));
    await following;
    await file?.close();
    expect(seen).toEqual(["one", "two", "three", "four"]);
  });
});

describe("the logs of a node", () => {
  const LAYOUT = () => masterLayout(base);
  const read = async (host: FakeMaster, names: readonly string[], more: object = {}) => {
    const told: string[] = [];
    const query = { since: null, lines: 200, follow: false, signal: new AbortController().signal, ...more };
    const lines = await all(
      readLogs(
        chooseSources(sourcesOf("master", LAYOUT()), names),
        { host, openLogFile },
        {
          ...query,
          areNamed: names.length > 0,
          missing: (source, why) => told.push(`${source}: ${why}`),
        },
      ),
    );
    return { lines: lines.map(({ source, text }) => `${source} ${text}`), told };
  };
  const box = async () => {
    const host = await joinedBox();
    host.docker.logTexts.set(NAMES.kubo, "2025-12-01T00:00:01.5Z start\n2025-12-01T00:00:03Z later");
    host.docker.logTexts.set(NAMES.webui, "2025-12-01T00:00:02Z hello");
    writeFileSync(LAYOUT().sweepLog, "2025-12-01T00:00:02Z swept\n  1 pin\n");
    return host;
  };

  it("are merged by time", async () => {
    expect(await read(await box(), [])).toEqual({
      lines: ["kubo start", "storage-api hello", "sweep swept", "sweep   1 pin", "kubo later"],
      told: [],
    });
  });

  it("say which of those that were named is not there", async () => {
    const names = [NAMES.webui, "gateway", "sweep", "backup"];
    expect(await read(await box(), names)).toEqual({
      lines: ["storage-api hello", "sweep swept", "sweep   1 pin"],
      told: [
        `gateway: there is no container ${NAMES.gateway}`,
        `backup: there is no file ${LAYOUT().backupLog} yet`,
      ],
    });
  });

  it("are chosen by name or by container, and since a time", async () => {
    const host = await box();
    expect((await read(host, ["sweep", NAMES.webui])).lines).toEqual([
      "storage-api hello",
      "sweep swept",
      "sweep   1 pin",
    ]);
    expect((await read(host, [], { since: new Date("2025-12-01T00:00:02.5Z") })).lines).toEqual([
      "kubo later",
    ]);
    await expect(read(host, ["nginx"])).rejects.toMatchObject({
      exit: "usage",
      remedy: expect.stringMatching(/^Names are: postgres, kubo, /) as string,
    });
    await expect(read(host, ["kubbo", "nginx"])).rejects.toMatchObject({
      exit: "usage",
      what: 'This node has no log named "kubbo", "nginx".',
      remedy: expect.stringMatching(/^Did you mean kubo\? Names are: postgres, kubo, /) as string,
    });
  });

  it("are followed through the restart of a container, each line once", async () => {
    const host = await box();
    const controller = new AbortController();
    const at = (second: number, text: string) => `2026-01-01T00:00:0${second}.000000000Z ${text}`;
    const streams = [
      [at(1, "one"), at(2, "two")],
      [at(2, "two"), at(3, "three")],
    ];
    host.docker.openLog = async (_name, { follow }) => {
      if (!follow) return of<string>();
      const lines = streams.shift();
      if (lines === undefined) controller.abort();
      return of(...(lines ?? []));
    };
    const { lines } = await read(host, ["kubo"], { follow: true, signal: controller.signal });
    expect(lines).toEqual(["kubo one", "kubo two", "kubo three"]);
  });

  it("have each line of a followed container once, also those with the same time or in the other order", async () => {
    const host = await box();
    const controller = new AbortController();
    const at = (tenthsMs: number, text: string) =>
      `2026-01-01T00:00:01.0${String(tenthsMs).padStart(3, "0")}00000Z ${text}`;
    const first = [at(10, "stderr"), at(9, "stdout"), at(25, "a"), at(25, "b"), at(25, "a"), at(24, "late")];
    // The engine sends again what it has since the last millisecond, and what stands after that.
    const again = first.slice(2);
    const streams = [
      first,
      [...again, at(25, "a"), at(25, "c")],
      [...again, at(25, "a"), at(25, "c"), at(30, "d")],
    ];
    const asked: unknown[] = [];
    host.docker.openLog = async (_name, { follow, since }) => {
      if (!follow) return of<string>();
      asked.push(since?.toISOString().slice(17));
      const lines = streams.shift();
      if (lines === undefined) controller.abort();
      return of(...(lines ?? []));
    };
    const { lines } = await read(host, ["kubo"], { follow: true, signal: controller.signal });
    expect(lines).toEqual(
      ["stderr", "stdout", "a", "b", "a", "late", "a", "c", "d"].map((one) => `kubo ${one}`),
    );
    expect(asked.slice(1)).toEqual(["01.002Z", "01.002Z", "01.003Z"]);
  });

  it("are followed when the clock was set back, and no line of then is kept", async () => {
    const host = await box();
    const controller = new AbortController();
    const at = (hour: number, text: string) => `2026-01-01T0${hour}:00:00.000000000Z ${text}`;
    const streams = [
      [at(3, "before"), at(1, "after")],
      [at(1, "after"), at(2, "later")],
    ];
    const asked: unknown[] = [];
    host.docker.openLog = async (_name, { follow, since }) => {
      if (!follow) return of<string>();
      asked.push(since?.toISOString().slice(11, 16));
      const lines = streams.shift();
      if (lines === undefined) controller.abort();
      return of(...(lines ?? []));
    };
    const { lines } = await read(host, ["kubo"], { follow: true, signal: controller.signal });
    expect(lines).toEqual(["kubo before", "kubo after", "kubo later"]);
    expect(asked.slice(1)).toEqual(["01:00", "02:00"]);
  });

  it("are followed when their container is created later, and it is said that they wait", async () => {
    const host = await box();
    const controller = new AbortController();
    const kubo = host.docker.boxes.get(NAMES.kubo);
    const streams = [null, [`2026-01-01T00:00:01.000000000Z hello`]];
    host.docker.openLog = async (_name, { follow }) => {
      if (!follow) return null;
      const lines = streams.shift();
      if (lines === undefined) controller.abort();
      if (kubo !== undefined) host.docker.boxes.set(NAMES.gateway, { ...kubo, name: NAMES.gateway });
      return lines === null ? null : of(...(lines ?? []));
    };
    expect(await read(host, ["gateway"], { follow: true, signal: controller.signal })).toEqual({
      lines: ["gateway hello"],
      told: [`gateway: there is no container ${NAMES.gateway}: waiting for it`],
    });
  });

  it("are those of files while Docker does not run, and it is said what is missing", async () => {
    const host = await box();
    host.stopEngine();
    const { lines, told } = await read(host, []);
    expect(lines).toEqual(["sweep swept", "sweep   1 pin"]);
    expect(told).toEqual(["Docker: the logs of its containers can't be read: no /var/run/docker.sock"]);
  });
});
