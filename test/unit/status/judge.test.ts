import * as fc from "fast-check";
import { expect, it } from "vitest";
import type { PeerIdentity } from "../../../src/cluster/client.ts";
import type { PlanItem } from "../../../src/engine/events.ts";
import { OperatorError } from "../../../src/errors.ts";
import { collectNotes } from "../../../src/status/collect.ts";
import { faultOfContainer, judgeDocker } from "../../../src/status/judge-docker.ts";
import {
  type ApiFacts,
  type DatabaseFacts,
  judgeApi,
  judgeDatabase,
  judgeWriter,
  type WriterFacts,
} from "../../../src/status/judge-master.ts";
import { judgeCron, judgeSettings } from "../../../src/status/judge-steps.ts";
import { faultOfGate, judgeGate } from "../../../src/status/gate-part.ts";
import {
  judgeDisk,
  judgeIngest,
  judgeKubo,
  judgeMasters,
  judgeName,
  judgePins,
} from "../../../src/status/judge-storage.ts";
import { type Judged, LATE } from "../../../src/status/part.ts";
import { conclude, linesOf } from "../../../src/status/screen.ts";
import { table, wrap } from "../../../src/ui/text.ts";
import { FakeHost } from "../../support/fake-host.ts";

const PEER: PeerIdentity = {
  id: "12D3KooWA",
  peername: "a",
  version: "1.1.6",
  error: "",
  ipfsError: "",
  ipfsAddresses: [],
  addresses: [],
  clusterPeers: [],
};
const KUBO = { status: 200, body: { ID: "12D3KooWK", AgentVersion: "kubo/0.42.0/abc" } };
const said = ({ state, summary }: Judged) => `${state}: ${summary}`;

it.each<[string, Partial<WriterFacts>, string]>([
  ["all is well", {}, "ok: kubo 0.42.0, ipfs-cluster 1.1.6, 1 peer"],
  ["nothing listens for kubo", { kubo: null }, "down: kubo does not answer at /kubo"],
  ["kubo hangs", { kubo: LATE }, "unknown: kubo did not answer in time"],
  [
    "something else answers",
    { kubo: { status: 404, body: null } },
    "down: what answers at /kubo is not kubo (status 404)",
  ],
  [
    "the cluster refuses",
    { cluster: "It answered 401." },
    "down: ipfs-cluster does not work: It answered 401.",
  ],
  ["both hang", { kubo: LATE, cluster: LATE }, "unknown: kubo and ipfs-cluster did not answer in time"],
  [
    "the cluster has lost its kubo",
    { cluster: { ...PEER, ipfsError: "refused" } },
    "down: ipfs-cluster does not reach its kubo: refused",
  ],
  [
    "a peer that was cut off is waited for: the writer itself works",
    { peers: LATE },
    "ok: kubo 0.42.0, ipfs-cluster 1.1.6; not every peer answered it in time",
  ],
  [
    "it gives no list of peers",
    { peers: "It answered 500." },
    "unknown: kubo 0.42.0, ipfs-cluster 1.1.6; no list of peers: It answered 500.",
  ],
])("the writer: %s", (_name, facts, expected) => {
  const all = { kuboAddress: "/kubo", kubo: KUBO, clusterAddress: "/cluster", cluster: PEER, peers: [PEER] };
  expect(said(judgeWriter({ ...all, ...facts }, "repair"))).toBe(expected);
});

const SCHEMA = { items: [], pending: 0, hasLedger: true, ledgerSince: null, running: null };
const OPEN = { kind: "open", serverVersion: "16.9 (Debian)", systemIdentifier: "" } as const;
const BROKEN: Judged = {
  state: "down",
  summary: "The ledger differs.",
  todo: "look",
  evidence: { why: "x" },
};

it.each<[string, Partial<DatabaseFacts>, string]>([
  ["no schema yet", {}, "ok: 16.9, no schema yet, 1.0 MB"],
  ["its size is not known", { sizeBytes: null }, "ok: 16.9, no schema yet"],
  ["no password is known", { answer: null }, "unknown: there is no password for it in .env"],
  ["it hangs", { answer: LATE }, "unknown: db:5432 did not answer in time"],
  [
    "its packets are dropped",
    { answer: { kind: "unreachable", why: "connect ETIMEDOUT" } },
    "unknown: db:5432 did not answer in time",
  ],
  [
    "it refuses connections",
    {
      answer: { kind: "unreachable", why: "connect ECONNREFUSED" },
      refusal: { what: "Nothing listens at db:5432." },
    },
    "down: Nothing listens at db:5432.",
  ],
  ["its ledger is not as it should be", { schema: BROKEN }, "attention: The ledger differs."],
  ["its ledger hangs", { schema: null }, "unknown: 16.9; the migration ledger did not arrive"],
  [
    "a table is gone",
    { remarks: [{ state: "attention", sentence: "the table pins is gone", todo: null }] },
    "attention: the table pins is gone",
  ],
  [
    "accounts are on hold",
    { held: 2 },
    "ok: 16.9, no schema yet, 1.0 MB, 2 accounts suspended by the operator",
  ],
  [
    "a restore of its dump was proven",
    { proven: "restore proven 3 days ago (1.0 MB in 2.0 s)" },
    "ok: 16.9, no schema yet, 1.0 MB, restore proven 3 days ago (1.0 MB in 2.0 s)",
  ],
])("the database: %s", (_name, facts, expected) => {
  const all = {
    place: "db:5432",
    answer: OPEN,
    schema: SCHEMA,
    sizeBytes: 1_000_000,
    held: 0,
    proven: null,
    refusal: null,
    remarks: [],
  };
  expect(said(judgeDatabase({ ...all, ...facts }, "repair"))).toBe(expected);
});

const NO_CLUSTER = { ok: false, error: "no answer" };
const FULL = { ok: false, error: "the disk is full", remedy: "free some" };
const DEGRADED = { checks: { postgres: { ok: false, error: "refused" }, cluster: { ok: true } } };

it.each<[string, Partial<ApiFacts>, string]>([
  ["it works", {}, "ok: here:1"],
  ["nothing listens", { health: null }, "down: here:1 does not answer"],
  ["it hangs", { health: LATE }, "unknown: here:1 did not answer in time"],
  [
    "a check fails",
    { health: { status: 503, body: DEGRADED } },
    "down: here:1 does not work: postgres: refused",
  ],
  [
    "only the cluster is away",
    { health: { status: 503, body: { checks: { postgres: { ok: true }, cluster: NO_CLUSTER } } } },
    "attention: here:1 accepts pins, but they wait in its queue: cluster: no answer",
  ],
  [
    "both are away",
    { health: { status: 503, body: { checks: { postgres: FULL, cluster: NO_CLUSTER } } } },
    "down: here:1 does not work: postgres: the disk is full; cluster: no answer",
  ],
  ["it says only a number", { health: { status: 500, body: null } }, "down: here:1 answers 500"],
  ["its route hangs", { route: { path: "/x", answer: LATE } }, "unknown: here:1/x did not answer in time"],
  [
    "its route is not there",
    { route: { path: "/x", answer: { status: 404, body: null } } },
    "attention: here:1 answers, but /x answers 404, not 401",
  ],
  [
    "upstream's has no health, and works",
    { otherImage: "theirs:1", health: { status: 401, body: {} } },
    "ok: here:1, image theirs:1",
  ],
  [
    "upstream's has no health, and does not work",
    {
      otherImage: "theirs:1",
      health: { status: 401, body: {} },
      route: { path: "/x", answer: { status: 502, body: null } },
    },
    "down: here:1/x answers 502",
  ],
  [
    "upstream's does not answer",
    { otherImage: "theirs:1", health: null, route: { path: "/x", answer: null } },
    "down: here:1 does not answer",
  ],
  [
    "upstream's answers without a key",
    { otherImage: "theirs:1", route: { path: "/x", answer: { status: 200, body: {} } } },
    "attention: here:1 answers, but /x answers 200, not 401",
  ],
  [
    "it works, and the cluster does not answer",
    { clusterFault: "refused" },
    "attention: here:1 works, but the cluster does not answer, so it can't count the pins: refused",
  ],
])("an API: %s", (_name, facts, expected) => {
  const all = {
    address: "here:1",
    otherImage: null,
    health: { status: 200, body: {} },
    route: { path: "/x", answer: { status: 401, body: {} } },
    clusterFault: null,
  };
  expect(said(judgeApi({ ...all, ...facts }, "log"))).toBe(expected);
});

it("an API that lacks only the cluster sends to the line that says what to do about it", () => {
  const route = { path: "/x", answer: { status: 401, body: {} } };
  const facts = { address: "here:1", otherImage: null, route };
  const todo = `see the line "writer": it says what to do`;
  const well = { status: 200, body: {} };
  expect(judgeApi({ ...facts, health: well, clusterFault: "refused" }, "log").todo).toBe(todo);
  const sick = { status: 503, body: { checks: { cluster: { ok: false, error: "refused" } } } };
  expect(judgeApi({ ...facts, health: sick, clusterFault: null }, "log").todo).toBe(todo);
});

it("an API whose health knows a remedy says that instead of naming its log", () => {
  const health = (postgres: object) => ({ status: 503, body: { checks: { postgres } } });
  const route = { path: "/x", answer: null };
  const todo = (postgres: object) =>
    judgeApi(
      { address: "here:1", otherImage: null, health: health(postgres), route, clusterFault: null },
      "log",
    ).todo;
  expect([todo(FULL), todo({ ok: false })]).toEqual(["free some", "log"]);
});

it.each<[number | null, object | null, string | null]>([
  [401, {}, null],
  [null, null, "does not answer"],
  [404, null, "answers 404"],
  [
    503,
    { error: "The database does not respond.", code: "x" },
    "answers 503 (The database does not respond.)",
  ],
  [502, { error: { reason: "x" } }, "answers 502"],
])("a storage API that answers %s to a key that it can't know: %j", (status, body, fault) => {
  expect(faultOfGate(status === null ? null : { status, body })).toBe(fault);
});

it("a storage API that can't be trusted is named, with what helps", () => {
  const ingest = { address: "a", maxBlockBytes: 1, mode: "strict" };
  const row = (tlsFault: string) =>
    judgeGate({ ...ingest, gate: { url: "https://m", fault: faultOfGate({ tlsFault }) } });
  expect(row("self-signed certificate").sentence).toBe(
    "https://m can't be trusted: self-signed certificate, so the ingest refuses every upload",
  );
  expect(row("self-signed certificate").todo).toMatch(/^Ask its operator for a new invite, .*-change$/);
  expect(row("certificate has expired").todo).toMatch(/timedatectl.*renew the certificate/);
});

it("what is not known of a storage node has an action each", () => {
  const unknown = { unknown: "it did not answer" } as const;
  const pins = { known: 1, statuses: { pinned: 1 }, isSettling: false, master: { pins: 1, ageMs: 0 } };
  const rows = [
    judgeMasters({ pool: "p", masters: null, trusted: ["x"], name: unknown }),
    judgeKubo(null),
    judgePins({ ...pins, known: null }),
    judgePins({ ...pins, statuses: null }),
    judgePins({ ...pins, master: unknown }),
    judgePins({ ...pins, statuses: { unreadable: 1 } }),
    judgeName({ name: unknown, peerId: "x" }),
    judgeName({ name: { name: "a", holder: "b", lacksInvite: false }, peerId: null }),
    judgeDisk(null, 1),
  ];
  expect(rows.map(({ state, todo }) => [state, typeof todo])).toEqual(rows.map(() => ["unknown", "string"]));
});

it("a fault of the master is said to be one", () => {
  const ingest = { address: "a", maxBlockBytes: 1, mode: "strict" };
  const todo = (fault: string) => judgeGate({ ...ingest, gate: { url: "https://m", fault } }).todo;
  expect(todo("answers 503 (no database)")).toMatch(/at the master/);
  expect(todo("answers 404")).toMatch(/STORAGE_API_URL/);
});

it("Docker without Compose needs attention; an engine that hangs is unknown", () => {
  const engine = {
    version: "26",
    apiVersion: "1",
    minApiVersion: "1",
    rootDirectory: "/",
    rootless: false,
    architecture: "amd64",
    userNamespaces: false,
  };
  expect(
    said(judgeDocker({ engine, why: null, compose: null, isInstalled: true, atBoot: true }, "repair")),
  ).toBe("attention: 26, without Compose v2");
  expect(
    judgeDocker({ engine, why: null, compose: LATE, isInstalled: true, atBoot: true }, "repair").state,
  ).toBe("unknown");
  const none = { engine: null, compose: null, isInstalled: true, atBoot: true };
  expect(judgeDocker({ ...none, why: LATE }, "repair").state).toBe("unknown");
  expect(said(judgeDocker({ ...none, why: "refused", isInstalled: false }, "repair"))).toBe(
    "down: is not installed: refused",
  );
  const fine = { engine, why: null, compose: "2.1", isInstalled: true };
  expect(said(judgeDocker({ ...fine, atBoot: false }, "repair"))).toBe(
    "attention: 26, does not start at boot",
  );
  expect(judgeDocker({ ...fine, atBoot: null }, "repair").state).toBe("ok");
});

it("a container whose healthcheck fails is down; of one that is not there, or not known, nothing is said", () => {
  const { docker } = new FakeHost();
  docker.putContainer("x");
  const container = docker.boxes.get("x");
  if (container === undefined) throw new Error("no container");
  const sick = new Map([["x", { ...container, status: "running", health: "unhealthy" } as const]]);
  expect(faultOfContainer(sick, "x", "repair")).toMatchObject({ state: "down", todo: "docker logs x" });
  expect(faultOfContainer(sick, "y", "repair")).toBeNull();
  expect(faultOfContainer(null, "x", "repair")).toBeNull();
});

const item = (step: string, more: Partial<PlanItem> = {}): PlanItem => ({
  step,
  title: step,
  state: "ours",
  evidence: {},
  drift: [],
  changes: [],
  ...more,
});
const CHANGE = { kind: "x", summary: "x" };
const late = (step: string) => ({ step, why: { ...BROKEN, state: "unknown", summary: "late" } as const });

it.each<[string, Parameters<typeof judgeSettings>[0], string]>([
  ["nothing", { items: [item("a")], unchecked: [] }, "ok: as in .env, nothing to repair"],
  [
    "a repair, and a step that was not looked at",
    { items: [item("a", { state: "drifted", changes: [CHANGE] })], unchecked: [late("b")] },
    "attention: 1 change pending: a: x; not checked: b",
  ],
  [
    "only a step that was not looked at",
    { items: [item("a")], unchecked: [late("b")] },
    "unknown: not checked: b (late)",
  ],
  [
    "something foreign",
    { items: [item("a", { state: "foreign", why: "It is theirs." })], unchecked: [] },
    "attention: join would stop: It is theirs.",
  ],
  [
    "a step that stops",
    { items: [], unchecked: [{ step: "b", why: BROKEN }] },
    "attention: join would stop at b: The ledger differs.",
  ],
])("what a join would change: %s", (_name, seen, expected) => {
  expect(said(judgeSettings(seen, "join"))).toBe(expected);
});

it("cron that could not be looked at is unknown", () => {
  expect(judgeCron({ items: [item("cron")], unchecked: [late("sweep-cron")] }, "join").state).toBe("unknown");
  const entries = [
    item("cron"),
    item("snapshot-cron"),
    item("sweep-cron"),
    item("drill-cron"),
    item("backup-cron"),
  ];
  expect(judgeCron({ items: entries, unchecked: [] }, "join").state).toBe("ok");
});

it("a file of cron that is missing is named by what it does", () => {
  const backup = item("backup-cron", { title: "cron job for backups", state: "absent", changes: [CHANGE] });
  const items = [item("cron"), item("snapshot-cron"), item("sweep-cron"), item("drill-cron"), backup];
  expect(said(judgeCron({ items, unchecked: [] }, "join"))).toBe(
    "attention: the cron job for backups is missing",
  );
});

it("an ingest is judged by its answer, not by its settings", () => {
  const ingest = {
    address: "0.0.0.0:3601",
    maxBlockBytes: 1,
    mode: "strict",
    gate: { url: "", fault: null },
  };
  expect(judgeIngest(ingest, null).state).toBe("down");
  expect(judgeIngest(ingest, LATE).state).toBe("unknown");
  expect(judgeIngest(ingest, { status: 503, body: null })).toMatchObject({
    state: "down",
    sentence: "0.0.0.0:3601 does not work: it answers 503",
  });
});

it("a note that can't be found out says so", async () => {
  const error = new OperatorError({ exit: "unavailable", what: "It is away." });
  expect(
    await collectNotes([
      { name: "a", find: () => Promise.resolve("1") },
      { name: "b", find: () => Promise.resolve(null) },
      { name: "c", find: () => Promise.reject(error) },
    ]),
  ).toEqual([
    { name: "a", text: "1" },
    { name: "b", text: "not known" },
    { name: "c", text: "not known: It is away." },
  ]);
});

it("the last line counts what is not ok, the most serious first", () => {
  const parts = (["ok", "unknown", "attention", "down", "attention"] as const).map((state) => ({ state }));
  expect(conclude(parts, null)).toBe(
    "1 part does not work, 2 things need attention, 1 part could not be checked (exit 27).",
  );
  expect(conclude([{ state: "ok" }], "this node is still syncing")).toBe(
    "Everything works; this node is still syncing (exit 0).",
  );
});

it("every line fits 80 columns, however long the words of a server are", () => {
  const part = {
    ...BROKEN,
    name: "database",
    summary: "word ".repeat(60).trim(),
    todo: "do ".repeat(40).trim(),
  };
  const lines = linesOf({ header: "h", parts: [part], notes: [], remark: null }, { table, wrap }, true);
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(80);
  expect(lines.length).toBeGreaterThan(8);
});

it("every line fits 80 columns with any states, names and remark; only a longer word stands alone", () => {
  const words = fc
    .array(fc.stringMatching(/^([a-z0-9/=-]{1,12}|[a-z]{60,90})$/), { maxLength: 12 })
    .map((some) => some.join(" "));
  const part = fc.record({
    name: fc.constantFrom("Docker", "pinning API", "storage API", "masters"),
    state: fc.constantFrom("ok" as const, "attention" as const, "down" as const, "unknown" as const),
    summary: words,
    todo: fc.option(words),
    evidence: fc.dictionary(fc.stringMatching(/^[a-z ]{1,30}$/), words, { maxKeys: 2 }),
  });
  const screen = fc.record({
    header: words,
    parts: fc.array(part, { maxLength: 12 }),
    notes: fc.array(fc.record({ name: fc.constantFrom("Pins", "Nodes"), text: words }), { maxLength: 2 }),
    remark: fc.option(words),
  });
  fc.assert(
    fc.property(screen, fc.boolean(), (shown, verbose) => {
      for (const line of linesOf(shown, { table, wrap }, verbose))
        expect(line.length <= 80 || !line.includes(" "), line).toBe(true);
    }),
  );
  // Each kind of trouble at once, on a node that syncs: 104 characters.
  const parts = (["down", "down", "attention", "attention", "unknown", "unknown"] as const).map((state) => ({
    state,
    name: "masters",
    summary: "",
    todo: null,
    evidence: {},
  }));
  const syncing = { header: "h", parts, notes: [], remark: "this node is still syncing" };
  expect(linesOf(syncing, { table, wrap }, false).slice(-2)).toEqual([
    "2 parts do not work, 2 things need attention, 2 parts could not be checked; this",
    "node is still syncing (exit 27).",
  ]);
});

it.each([
  ["table api_keys", "down"],
  ["column pins.size", "attention"],
])("a database that lost %s is %s", (part, state) => {
  const lost = `The database lacks what its ledger says was created: ${part}.`;
  const answer = { kind: "open", serverVersion: "16.4", systemIdentifier: "7" } as const;
  const schema = { state: "down", summary: lost, todo: "restore it", evidence: {} } as const;
  const facts = {
    place: "x:5432",
    answer,
    schema,
    sizeBytes: null,
    held: null,
    proven: null,
    refusal: null,
    remarks: [],
  };
  expect(judgeDatabase(facts, "repair")).toMatchObject({ state, summary: lost });
});
