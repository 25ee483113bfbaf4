import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { Readable } from "node:stream";
import { extract } from "tar-stream";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { type DoctorBench, openDoctorBench } from "../../support/doctor-master.ts";
import { LAYOUT, secretsOf } from "../../support/master-boxes.ts";
import { type FakeStorage, worldOf } from "../../support/storage-fake.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";

let bench: DoctorBench;
let base: string;
beforeAll(async () => {
  bench = await openDoctorBench();
});
afterAll(() => bench.clear());
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "fula-bundle-"));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const RUN: Partial<World> = { pid: 1, takeLock: async () => ({ release: async () => {} }) };
const EMAIL = "ann.user+7@mail.example.org";

async function unpack(path: string): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  const reading = extract();
  reading.on("entry", ({ name }, stream, next) => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      files.set(name, Buffer.concat(chunks).toString("utf8"));
      next();
    });
  });
  await new Promise((done, failed) => {
    reading.on("finish", done).on("error", failed);
    Readable.from([gunzipSync(readFileSync(path))]).pipe(reading);
  });
  return files;
}

/** How a secret can stand in a log. */
const formsOf = (secret: string) => [
  secret,
  JSON.stringify(secret).slice(1, -1),
  encodeURIComponent(secret),
  Buffer.from(secret).toString("base64"),
  Buffer.from(secret).toString("base64url"),
  Buffer.from(`me:${secret}`).toString("base64"),
  Buffer.from(secret).toString("hex"),
];

/** Writes every form of these secrets into everything that an archive is made of. */
function plant(host: FakeStorage, secrets: readonly string[]): void {
  const lines = secrets.flatMap(formsOf).map((form) => form.replaceAll("\n", "\\n"));
  const noise = lines.map((line) => `2026-01-01T00:00:00.000000000Z said ${line} and more`).join("\n");
  for (const name of host.docker.boxes.keys()) host.docker.logTexts.set(name, noise);
  const paths = [
    LAYOUT.composeFile,
    "/opt/fula-writer/docker-compose.yml",
    LAYOUT.knownNodes,
    LAYOUT.drillRecord,
    LAYOUT.alertLog,
    "/etc/docker/daemon.json",
    "/etc/resolv.conf",
  ];
  for (const path of paths) host.files.put(path, `${host.files.tree.get(path)?.text ?? ""}\n${noise}\n`);
  const saved = host.files.textOf(LAYOUT.envFile);
  host.files.put(LAYOUT.envFile, `${saved}OPERATOR_NOTE='${EMAIL}'\nOTHER_TOOL_TOKEN=${TOKEN}\n`, 0o600);
  const kubo = host.docker.boxes.get(NAMES.kubo);
  if (kubo !== undefined)
    host.docker.boxes.set(NAMES.kubo, {
      ...kubo,
      healthOutput: lines.join(" "),
      health: "unhealthy",
      labels: { ...kubo.labels, "com.docker.compose.note": lines.join(" "), other: lines.join(" ") },
    });
}

const TOKEN = "t0ken-of-0ther-tool-123";

it("has none of the secrets of the node and no e-mail address, in no form", async () => {
  const host = bench.master();
  const pem = host.files.textOf(LAYOUT.signingKey);
  const secrets = [...secretsOf(host), EMAIL, TOKEN, pem.trim()];
  expect(secrets.length).toBeGreaterThan(8);
  plant(host, secrets);
  const path = join(base, "support.tar.gz");
  const { lines, data } = await bench.doctorOn(host, { bundle: path });
  const files = await unpack(path);
  expect([...files.keys()]).toEqual(
    expect.arrayContaining(
      [
        "doctor.txt",
        "doctor.json",
        "versions.json",
        "settings.txt",
        "containers.json",
        "compose/node.yml",
        "logs/kubo.log",
      ].map((name) => `fula-node-doctor/${name}`),
    ),
  );
  const found: string[] = [];
  for (const [name, text] of [
    ...files,
    ["screen", lines.join("\n")],
    ["--json", JSON.stringify(data)],
  ] as const)
    for (const secret of secrets)
      for (const form of formsOf(secret)) if (text.includes(form)) found.push(`${name}: ${form}`);
  expect(found).toEqual([]);
  const kubo = files.get("fula-node-doctor/logs/kubo.log") ?? "";
  expect(kubo.split("[redacted]").length).toBeGreaterThan(secrets.length);
  expect(kubo).toContain("said");
});

it("has the end of a text that is too long, from the beginning of a line, and no half of a secret", async () => {
  const host = bench.master();
  const [secret = ""] = secretsOf(host);
  const fill = "fill\n".repeat((4 * 1024 ** 2) / 5);
  // The last 4 MiB begin in the middle of the secret.
  const end = fill.slice(Math.ceil(secret.length / 2 / 5) * 5);
  host.files.put(LAYOUT.knownNodes, `first ${secret}\n${end}`);
  const path = join(base, "a.tar.gz");
  await bench.doctorOn(host, { bundle: path });
  const text = (await unpack(path)).get("fula-node-doctor/state/known-nodes.json") ?? "";
  expect(text.split("\n", 2)).toEqual(["first [redacted]", "fill"]);
  host.files.put(LAYOUT.knownNodes, `first ${secret}\n${"longer fill\n".repeat(400_000)}`);
  const other = join(base, "b.tar.gz");
  await bench.doctorOn(host, { bundle: other });
  const cut = (await unpack(other)).get("fula-node-doctor/state/known-nodes.json") ?? "";
  expect(cut.split("\n", 1)).toEqual(["longer fill"]);
  expect(cut.length).toBeGreaterThan(4 * 1024 ** 2 - 20);
});

it("has the heartbeats and records of everything that cron runs", async () => {
  const path = join(base, "a.tar.gz");
  const records = {
    "snapshot-heartbeat": LAYOUT.snapshotHeartbeat,
    "sweep-heartbeat": LAYOUT.sweepHeartbeat,
    "backup-heartbeat": LAYOUT.backupHeartbeat,
    drills: LAYOUT.drillRecord,
    backups: LAYOUT.backupRecord,
  };
  await bench.doctorOn(
    bench.master((host) => {
      for (const [name, place] of Object.entries(records)) host.files.put(place, `{"of":"${name}"}`);
    }),
    { bundle: path },
  );
  const files = await unpack(path);
  for (const name of Object.keys(records))
    expect(files.get(`fula-node-doctor/state/${name}.json`)).toBe(`{"of":"${name}"}`);
});

it("tells which settings are set, and the values of those that are no secret", async () => {
  const path = join(base, "a.tar.gz");
  await bench.doctorOn(bench.master(), { bundle: path });
  const settings = (await unpack(path)).get("fula-node-doctor/settings.txt");
  expect(settings).toMatch(/^CLUSTERNAME=pool$/m);
  expect(settings).toMatch(/^# POSTGRES_PASSWORD is set \(secret\)$/m);
  expect(settings).toMatch(/^# PUBLIC_HOST is not set$/m);
});

it("is root's alone, whole under its name, and replaces nothing", async () => {
  const path = join(base, "a.tar.gz");
  await bench.doctorOn(bench.master(), { bundle: path });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readdirSync(base)).toEqual(["a.tar.gz"]);
  const before = readFileSync(path);
  await expect(bench.doctorOn(bench.master(), { bundle: path })).rejects.toMatchObject({ exit: "usage" });
  expect(readFileSync(path)).toEqual(before);
});

it("is refused for a place where it can't be written, before anything is looked at or repaired", async () => {
  const file = join(base, "file");
  writeFileSync(file, "theirs");
  const places = [
    ["", /^--bundle has no file name/],
    [" ", /^--bundle has no file name/],
    [join(base, "none", "a.tar.gz"), /none does not exist, so .*a\.tar\.gz can't be written/],
    [join(file, "a.tar.gz"), /file is not a directory, so /],
    [join(file, "below", "a.tar.gz"), /below does not exist, so /],
    [base, /exists already/],
  ] as const;
  for (const [bundle, what] of places) {
    const host = bench.master((one) => void one.docker.boxes.delete(NAMES.webui));
    await expect(bench.doctorOn(host, { bundle, fix: true, yes: true }, RUN), bundle).rejects.toMatchObject({
      exit: "usage",
      what: expect.stringMatching(what) as string,
      remedy: expect.any(String) as string,
    });
    expect(host.writes, bundle).toEqual([]);
  }
  expect(readdirSync(base)).toEqual(["file"]);
});

it("prints the findings, and then in words why it could not be written", async () => {
  const shown: Result[] = [];
  const host = bench.master((one) => {
    one.docker.boxes.delete(NAMES.webui);
    one.system.facts.clockSynchronised = false;
  });
  const reporter = { ...worldOf(host).reporter, result: (result: Result) => void shown.push(result) };
  const path = join(base, "gone", "a.tar.gz");
  mkdirSync(join(base, "gone"));
  const takeLock = async () => {
    rmSync(join(base, "gone"), { recursive: true, force: true });
    return { release: async () => {} };
  };
  await expect(
    bench.doctorOn(host, { bundle: path, fix: true, yes: true }, { ...RUN, takeLock, reporter }),
  ).rejects.toMatchObject({
    exit: "unavailable",
    what: `Cannot write ${path}.`,
    why: "it does not exist",
    changed: expect.stringMatching(/^what the repair did/) as string,
  });
  expect(host.docker.boxes.get(NAMES.webui)?.status).toBe("running");
  expect(shown.at(-1)?.lines.join("\n")).toContain("clock");
  expect(shown.at(-1)?.data).toMatchObject({ exit: "unavailable", exitCode: 29 });
});

it("leaves nothing if a signal ends the process in the middle", async () => {
  const { writeBundle } = await import("../../../src/doctor/bundle-file.ts");
  const others = new Set(process.listeners("exit"));
  const seen: (readonly string[])[] = [];
  const entries = async function* () {
    yield { name: "x", text: "y" };
    seen.push(readdirSync(base));
    for (const act of process.listeners("exit")) if (!others.has(act)) act(130);
    seen.push(readdirSync(base));
    throw new Error("the process has ended");
  };
  await expect(writeBundle(join(base, "a.tar.gz"), entries(), new Date(0))).rejects.toThrow();
  expect(seen).toEqual([[expect.stringContaining(".a.tar.gz.fula-node-tmp.")], []]);
  expect(process.listeners("exit").filter((act) => !others.has(act))).toEqual([]);
});

it("leaves nothing if something takes the name meanwhile", async () => {
  const { writeBundle } = await import("../../../src/doctor/bundle-file.ts");
  const path = join(base, "a.tar.gz");
  const entries = async function* () {
    yield { name: "x", text: "y" };
    writeFileSync(path, "other");
  };
  await expect(writeBundle(path, entries(), new Date(0))).rejects.toMatchObject({ exit: "usage" });
  expect(readFileSync(path, "utf8")).toBe("other");
  expect(readdirSync(base)).toEqual(["a.tar.gz"]);
});

it("can be made of a machine without a node, and while Docker does not run", async () => {
  const path = join(base, "a.tar.gz");
  await bench.doctorOn(
    bench.master((host) => host.stopEngine()),
    { bundle: path },
  );
  expect((await unpack(path)).get("fula-node-doctor/logs/kubo.log")).toMatch(/^Not read: .*docker\.sock/);
});

it("removes what a killed run left, and not what another one still writes", async () => {
  const { writeBundle } = await import("../../../src/doctor/bundle-file.ts");
  const path = join(base, "bundle.tar.gz");
  // No process has this number.
  const left = `.bundle.tar.gz.fula-node-tmp.4194305.abc`;
  const used = `.bundle.tar.gz.fula-node-tmp.${process.pid}.def`;
  for (const name of [left, used]) writeFileSync(join(base, name), "half");
  await writeBundle(path, Readable.from([{ name: "a.txt", text: "a" }]), new Date(0));
  expect(readdirSync(base).toSorted()).toEqual([used, "bundle.tar.gz"]);
});
