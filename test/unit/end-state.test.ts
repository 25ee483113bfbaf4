import { expect, it } from "vitest";
import { lostSince, stateDifference, type Survey, toEndState } from "../support/end-state.ts";

interface Chosen {
  readonly password?: string;
  readonly peer?: string;
  readonly at?: string;
}

/** A small box, as end-state-survey.cjs prints it. */
function survey({
  password = "p4ssword-of-one",
  peer = "12D3KooWone",
  at = "2026-01-01T00:00:00.000Z",
}: Chosen = {}) {
  const compact = `${at.slice(0, 19).replaceAll(/[-:]/g, "")}Z`;
  const name = `pinset-${compact}`;
  return {
    files: [
      { path: "/opt/fula-master", kind: "directory", mode: "755", owner: "0:0" },
      {
        path: "/opt/fula-master/.env",
        kind: "file",
        mode: "600",
        owner: "0:0",
        text: `CLUSTERNAME=test-pool\nPOSTGRES_PASSWORD=${password}\n`,
      },
      {
        path: "/opt/fula-master/journal.ndjson",
        kind: "file",
        mode: "600",
        owner: "0:0",
        text: `{"at":"${at}"}\n`,
      },
      {
        path: "/opt/fula-writer/ipfs-cluster/identity.json",
        kind: "file",
        mode: "600",
        owner: "61077:61077",
        text: JSON.stringify({ id: peer, private_key: `private-${peer}` }),
      },
      {
        path: `/opt/fula-master/snapshots/${name}.manifest.json`,
        kind: "file",
        mode: "600",
        owner: "0:0",
        text: JSON.stringify({ name, peer, created_at: at }),
      },
      {
        path: `/opt/fula-master/snapshots/${name}.manifest.sig`,
        kind: "file",
        mode: "600",
        owner: "0:0",
        content: `signed at ${at}`,
      },
    ],
    docker: {
      containers: [
        {
          Id: `${peer}abc`,
          Name: "/postgres-pinning",
          Image: `sha256:${peer}`,
          State: { Status: "running", Health: { Status: "healthy" }, StartedAt: at },
          Config: {
            Hostname: peer,
            Env: [`POSTGRES_PASSWORD=${password}`],
            Labels: { "land.fx.fula-node.step": "postgres", "com.docker.compose.image": `sha256:${peer}` },
          },
          HostConfig: { RestartPolicy: { Name: "unless-stopped" } },
          Mounts: [],
          NetworkSettings: { Networks: { "fula-master_default": { IPAddress: "10.0.0.2" } } },
        },
      ],
      volumes: [{ Name: "fula-master_pgdata", CreatedAt: at, Driver: "local", Labels: { a: "b" } }],
      networks: [{ Name: "bridge", Id: peer, Driver: "bridge" }],
      images: [
        {
          Id: `sha256:${peer}`,
          RepoTags: ["postgres:16"],
          Config: { Cmd: ["x"] },
          RootFS: { Layers: ["l"] },
        },
      ],
    },
    units: ["enabled docker.service"],
    tables: "",
    database: {
      dump: "--\n-- Name: pins; Type: TABLE; Schema: public; Owner: me\n--\n\nCREATE TABLE public.pins (\n    id bigint\n);\n",
      rows: [
        { name: "public.cron_lease", rows: at.length + peer.length },
        { name: "public.pins", rows: 0 },
      ],
      ledger: [{ version: 1, state: "applied" }],
      invalid: [],
      roles: [{ rolname: "pinning_user" }],
      system: `7${peer}`,
    },
  } satisfies Survey;
}

const clean = toEndState(survey());
const other = { password: "p4ssword-of-two", peer: "12D3KooWtwo", at: "2026-02-02T22:22:22.222Z" };

/** The survey with one text replaced in its JSON. */
function changed(from: string, to: string): Survey {
  const text = JSON.stringify(survey());
  expect(text).toContain(from);
  return JSON.parse(text.replace(from, to)) as Survey;
}

it("two clean runs are equal although secrets, identities and times differ", () => {
  expect(stateDifference(clean, toEndState(survey(other)))).toEqual([]);
  expect(clean.things["file /opt/fula-master/.env"]).toContain("POSTGRES_PASSWORD=<POSTGRES_PASSWORD>");
});

it("no value of a secret or of a key is in it", () => {
  const text = JSON.stringify(clean);
  expect(text).not.toContain("p4ssword");
  expect(text).not.toContain("private-12D3");
});

it.each([
  [
    "a mode",
    '"mode":"755"',
    '"mode":"775"',
    "changed: file /opt/fula-master: directory 755 0:0 -> directory 775 0:0",
  ],
  [
    "an owner",
    '"owner":"61077:61077"',
    '"owner":"0:61077"',
    "changed: file /opt/fula-writer/ipfs-cluster/identity.json:",
  ],
  [
    "a label",
    '"land.fx.fula-node.step":"postgres"',
    '"land.fx.fula-node.step":"other"',
    "changed: container postgres-pinning:",
  ],
  ["a state", '"Status":"running"', '"Status":"exited"', "changed: container postgres-pinning:"],
  [
    "a container's environment",
    '"POSTGRES_PASSWORD=p4s',
    '"POSTGRES_PASSWORD=old',
    "changed: container postgres-pinning:",
  ],
  [
    "a column",
    "id bigint",
    "id integer",
    "changed: schema pins; Type: TABLE; Schema: public: id bigint -> id integer",
  ],
  ["a row", '"rows":0', '"rows":1', "changed: rows of public.pins: 0 -> 1"],
  ["the ledger", '"state":"applied"', '"state":"applying"', "changed: migration 1:"],
  ["an index that is not valid", '"invalid":[]', '"invalid":[{"name":"i"}]', "more: invalid index i"],
  [
    "a setting",
    "CLUSTERNAME=test-pool",
    "CLUSTERNAME=other",
    "changed: file /opt/fula-master/.env: file 600 0:0 CLUSTERNAME=test-pool ->",
  ],
  ["a unit", '["enabled docker.service"]', "[]", "less: unit enabled docker.service"],
  ["a layer", '["l"]', '["m"]', "changed: image postgres:16:"],
  [
    "a torn line of the journal",
    String.raw`000Z\"}\n`,
    String.raw`000Z\n`,
    "changed: file /opt/fula-master/journal.ndjson:",
  ],
])("%s that changed is seen", (_name, from, to, line) => {
  const found = stateDifference(clean, toEndState(changed(from, to)));
  expect(found).toHaveLength(1);
  expect(found[0]).toContain(line);
});

it("a last line of the journal that a kill cut off is no difference: the next line replaces it", () => {
  const cut = changed(String.raw`000Z\"}\n`, "000Z");
  expect(stateDifference(clean, toEndState(cut))).toEqual([]);
});

it("a file more and a file less are seen, and two that differ in their time only are two", () => {
  const more = { path: "/opt/fula-master/.env.tmp", kind: "file", mode: "600", owner: "0:0", text: "" };
  const { files } = survey();
  const [again] = survey({ at: other.at }).files.slice(-1);
  const [, ...less] = files;
  const withFiles = (some: Survey["files"]) => toEndState({ ...survey(), files: some });
  expect(stateDifference(clean, withFiles([...files, more]))).toEqual([
    "more: file /opt/fula-master/.env.tmp",
  ]);
  expect(stateDifference(clean, withFiles(less))).toEqual(["less: file /opt/fula-master"]);
  expect(stateDifference(clean, withFiles(again === undefined ? files : [...files, again]))).toEqual([
    "more: file /opt/fula-master/snapshots/pinset-<time>.manifest.sig #2",
  ]);
});

it("what was written once must stay: secrets, identities, the database, snapshots", () => {
  expect(lostSince(clean, clean)).toEqual([]);
  const { files } = survey();
  expect(lostSince(toEndState({ ...survey(), files: files.slice(0, 2), database: null }), clean)).toEqual([]);
  expect(lostSince(clean, toEndState(survey(other)))).toEqual([
    "changed: POSTGRES_PASSWORD",
    "changed: peer id of ipfs-cluster",
    "changed: private key of ipfs-cluster",
    "lost: snapshot pinset-20260101T000000Z.manifest.sig",
    "changed: system identifier of Postgres",
  ]);
});

it("a replaced snapshot key is compared, without what each replacement makes anew", () => {
  const withMemory = (retired: string, successor: string, endorsement: string) => {
    const key = { key_id: retired, public_pem: "old", successor_id: successor, endorsement };
    const text = JSON.stringify({ retired_keys: [key] });
    const file = {
      path: "/opt/fula-master/state/snapshot-chain.json",
      kind: "file",
      mode: "644",
      owner: "0:0",
    };
    return toEndState({ ...survey(), files: [...survey().files, { ...file, text }] });
  };
  const one = withMemory("a".repeat(16), "b".repeat(16), "c".repeat(128));
  expect(stateDifference(one, withMemory("d".repeat(16), "e".repeat(16), "f".repeat(128)))).toEqual([]);
  expect(stateDifference(one, withMemory("a".repeat(16), "b".repeat(16), ""))).toHaveLength(1);
  expect(stateDifference(one, withMemory("a".repeat(16), "", "c".repeat(128)))).toHaveLength(1);
});

it("the order of a container's mounts does not count, and what is mounted does", () => {
  const withMounts = (...targets: readonly string[]) => {
    const { docker } = survey();
    const [container] = docker.containers;
    const Mounts = targets.map((Target) => ({ Type: Target === "/data" ? "volume" : "bind", Target }));
    const one = { ...container, HostConfig: { Mounts, Binds: targets.map((target) => `/opt:${target}`) } };
    return toEndState({ ...survey(), docker: { ...docker, containers: [one] } });
  };
  const here = withMounts("/data", "/init");
  expect(stateDifference(here, withMounts("/init", "/data"))).toEqual([]);
  expect(stateDifference(here, withMounts("/data", "/other"))).toHaveLength(1);
});

it("an empty list that a restarted engine writes instead of null is the same, and a value in it is not", () => {
  const withDns = (Dns: readonly string[] | null) => {
    const { docker } = survey();
    const [container] = docker.containers;
    return toEndState({
      ...survey(),
      docker: { ...docker, containers: [{ ...container, HostConfig: { Dns } }] },
    });
  };
  expect(stateDifference(withDns(null), withDns([]))).toEqual([]);
  expect(stateDifference(withDns(null), withDns(["1.1.1.1"]))).toHaveLength(1);
});
