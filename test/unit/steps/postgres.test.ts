import { describe, expect, it } from "vitest";
import { NAMES, OWNER_LABEL } from "../../../src/settings/layout.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { FakeMaster, putDatabase } from "../../support/fake-master.ts";
import {
  boxBefore,
  join,
  joinedBox,
  lookAt,
  savedValues,
  secretsOf,
  stepOn,
} from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const { postgres: NAME, postgresVolume: VOLUME } = NAMES;
const DATA = `/var/lib/docker/volumes/${VOLUME}/_data`;
const UP = { kind: "up", summary: `start ${NAME}`, services: ["postgres"] };

const before = await boxBefore("postgres");
const step = await stepOn(before, "postgres");

/** A database in a volume without our label, made with the password in `.env`. */
function putOlderData(host: FakeHost, major = "16"): void {
  const password = savedValues(host)["POSTGRES_PASSWORD"] ?? "";
  host.docker.putVolume(VOLUME);
  putDatabase(host, DATA, major, { user: "pinning_user", password, database: "pinning_service" });
}

/** Data on a volume of ours. */
function putOurData(host: FakeHost, major: string): void {
  putOlderData(host, major);
  host.docker.putVolume(VOLUME, { [OWNER_LABEL.key]: OWNER_LABEL.value });
}

/** The container that upstream's installer made: of the same compose project and service. */
function putUpstreams(host: FakeHost, labels: Readonly<Record<string, string>> = {}): void {
  putOlderData(host);
  host.docker.putContainer(NAME, {
    image: "postgres:16-alpine",
    labels: {
      "com.docker.compose.project": "fula-master",
      "com.docker.compose.service": "postgres",
      ...labels,
    },
    env: { POSTGRES_PASSWORD: savedValues(host)["POSTGRES_PASSWORD"] ?? "" },
    mounts: [{ type: "volume", name: VOLUME, source: DATA, destination: "/var/lib/postgresql/data" }],
  });
}

function change(host: FakeHost, fields: object): void {
  const container = host.docker.boxes.get(NAME);
  if (container === undefined) throw new Error(`no container ${NAME}`);
  host.docker.boxes.set(NAME, { ...container, ...fields });
}

stepLaws("postgres", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "the container is stopped",
      arrange: (host) => change(host, { status: "exited", pid: 0 }),
      names: /postgres-pinning: its status is exited/,
    },
    {
      name: "the container is unhealthy",
      arrange: (host) => change(host, { health: "unhealthy" }),
      names: /postgres-pinning: its healthcheck fails/,
    },
    {
      name: "the container was created with other settings",
      arrange: (host) => {
        const { labels } = host.docker.boxes.get(NAME) ?? { labels: {} };
        change(host, { labels: { ...labels, "com.docker.compose.config-hash": "other" } });
      },
      names: /created with other settings/,
    },
    {
      name: "the image was renewed",
      arrange: (host) => host.docker.putImage("postgres:16-alpine", { renewed: "yes" }),
      names: /created from an older image/,
    },
  ],
  foreign: [
    {
      name: "a container of that name, from nowhere",
      arrange: (host) => void host.docker.putContainer(NAME, { image: "postgres:12" }),
      why: /fula-node did not create the container postgres-pinning \(image postgres:12, no compose project/,
    },
    {
      name: "a container of that name, of another compose project",
      arrange: (host) => putUpstreams(host, { "com.docker.compose.project": "fula-master-2" }),
      why: /compose project fula-master-2/,
    },
    {
      name: "a container of that name, of another service of the project",
      arrange: (host) => putUpstreams(host, { "com.docker.compose.service": "db" }),
      why: /fula-node did not create the container postgres-pinning/,
    },
    {
      name: "a container run by hand on the volume",
      arrange: (host) => {
        putUpstreams(host);
        change(host, { labels: {} });
      },
      why: /no compose project/,
    },
    {
      name: "the volume of another Postgres major",
      arrange: (host) => putOlderData(host, "15"),
      why: /Postgres 15 created the volume fula-master_pgdata, but the image is postgres:16-alpine/,
    },
    {
      name: "our own volume of another Postgres major, its container running",
      arrange: async (host) => {
        for (const one of (await lookAt(step, host)).changes) await step.apply(one, host, () => {});
        host.files.put(`${DATA}/PG_VERSION`, "17\n");
      },
      why: /Postgres 17 created the volume/,
    },
  ],
  secrets: secretsOf,
});

/** Adopting makes the compose file name the volume first, so these run on a box that has no such file yet. */
const early = await boxBefore("compose-file");

describe("postgres", () => {
  it("is pulled if it is missing, and brought up alone", async () => {
    const host = before.copy();
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "pull-image", summary: "pull postgres:16-alpine", image: "postgres:16-alpine" },
      UP,
    ]);
    host.docker.putImage("postgres:16-alpine");
    expect((await lookAt(step, host)).changes).toEqual([UP]);
  });

  it("is restarted, not pulled and created again, if it is unhealthy", async () => {
    const host = await joinedBox();
    change(host, { health: "unhealthy" });
    host.docker.images.delete("postgres:16-alpine");
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "restart", summary: `restart ${NAME}`, container: NAME },
    ]);
  });

  it("takes what an image is from the image, not from its tag", async () => {
    const image = "timescale/timescaledb:2.17.2-pg16";
    const set = { POSTGRES_IMAGE: image };
    const host = await boxBefore("postgres", { set });
    host.docker.registry.set(image, {});
    const other = await stepOn(host, "postgres", { set });
    putOurData(host, "16");
    host.docker.imageEnvs.set(image, { PG_MAJOR: "16", PGDATA: "/var/lib/postgresql/data" });
    host.docker.putImage(image);
    expect((await lookAt(other, host)).finding.state).not.toBe("foreign");
    host.docker.putImage(image, {}, { env: { PG_MAJOR: "17" } });
    expect((await lookAt(other, host)).finding).toMatchObject({
      state: "foreign",
      why: `Postgres 16 created the volume ${VOLUME}, but the image is ${image}, a Postgres 17.`,
    });
  });

  it.each([
    ["of another major", { env: { PG_MAJOR: "17" } }, /Postgres 16 created the volume/],
    [
      "of another C library",
      { env: { PG_MAJOR: "16", PG_VERSION: "16.4-1.pgdg120+2" } },
      /sort text differently/,
    ],
    ["for another machine", { architecture: "arm64" }, /is for arm64, and this machine is amd64/],
    [
      "that keeps its data elsewhere",
      { env: { PGDATA: "/var/lib/postgresql/18/docker" } },
      /keeps its data in/,
    ],
  ])("an image %s that was just pulled never starts on the data", async (_, fields, what) => {
    const set = { POSTGRES_IMAGE: "registry.example:5000/db:latest" };
    const host = await boxBefore("postgres", { set });
    const other = await stepOn(host, "postgres", { set });
    putOurData(host, "16");
    host.files.put(`${DATA}/postmaster.opts`, '/usr/local/bin/postgres "-c" "x"\n');
    const { changes } = await lookAt(other, host);
    expect(changes.map(({ kind }) => kind)).toEqual(["pull-image", "up"]);
    host.docker.putImage(set.POSTGRES_IMAGE, {}, fields);
    const failed = other.apply(changes[1], host, () => {});
    await expect(failed).rejects.toMatchObject({ exit: "foreign", what: expect.stringMatching(what) });
    expect(host.docker.boxes.has(NAME)).toBe(false);
  });

  it("finds the C library in the layers of an image, and of the one that ran last", async () => {
    const host = await joinedBox();
    const running = host.docker.boxes.get(NAME);
    host.docker.putImage(running?.imageId ?? "", {}, { env: {}, layers: ["/layers/a", "/layers/b"] });
    host.files.put("/layers/b/usr/lib/os-release", 'PRETTY_NAME="Alpine"\nID=alpine\n');
    host.docker.putImage("postgres:16", {}, { env: { PG_MAJOR: "16" }, layers: ["/layers/c"] });
    host.files.put("/layers/c/usr/lib/os-release", "ID=debian\n");
    const set = { POSTGRES_IMAGE: "postgres:16" };
    expect((await lookAt(await stepOn(host, "postgres", { set }), host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`A server with musl (Alpine and others) last ran on the volume ${VOLUME}`),
      remedy: expect.stringContaining("#collation"),
    });
  });

  describe("whose first start was cut short", () => {
    async function cutShort(): Promise<FakeMaster> {
      const host = await joinedBox();
      for (const path of Array.from(host.files.tree.keys()))
        if (path.startsWith(`${DATA}/`)) host.files.drop(path);
      for (const path of ["PG_VERSION", "base/1/1259", "base/5/1259", "global/1260", "pg_wal/0"])
        host.files.put(`${DATA}/${path}`, "16\n", 0o600);
      return host;
    }

    it("is made anew: nothing can be in it", async () => {
      const host = await cutShort();
      const { finding, changes } = await lookAt(step, host);
      expect(finding).toMatchObject({ state: "drifted", drift: [expect.stringContaining("was cut short")] });
      expect(changes.map(({ summary }) => summary)).toEqual([
        `remove ${NAME}`,
        `remove the volume ${VOLUME}, whose first start was cut short; nothing is in it`,
        `start ${NAME}`,
      ]);
      await join(host);
      expect(host.files.textOf(`${DATA}/role.json`)).toContain("pinning_user");
    });

    it.each<[string, (host: FakeMaster) => void]>([
      ["a database of a user is there", (host) => host.files.put(`${DATA}/base/16384/1259`, "")],
      ["a table of a user is there", (host) => host.files.put(`${DATA}/base/5/16390`, "")],
      ["a tablespace is there", (host) => host.files.put(`${DATA}/pg_tblspc/16400`, "")],
      ["somebody put a file there", (host) => host.files.put(`${DATA}/dump.sql`, "")],
      ["base/ is not there", (host) => host.files.drop(`${DATA}/base`)],
      ["it is not our volume", (host) => host.docker.putVolume(VOLUME)],
      ["it still starts for the first time", (host) => change(host, { health: "starting" })],
      [
        "it answers",
        (host) => {
          host.postgres.onAsk = () => ({ kind: "open", serverVersion: "16.9", systemIdentifier: "7" });
        },
      ],
    ])("is left alone if %s", async (_, arrange) => {
      const host = await cutShort();
      arrange(host);
      const { changes } = await lookAt(step, host);
      expect(changes.map(({ kind }) => kind)).not.toContain("remove-volume");
      const removal = { kind: "remove-volume", summary: "", volume: VOLUME };
      await expect(step.apply(removal, host, () => {})).rejects.toMatchObject({ exit: "interrupted" });
      expect(host.docker.volumes.has(VOLUME)).toBe(true);
    });
  });

  it("is waited for while it recovers, with what it says", async () => {
    const host = await joinedBox();
    const open = host.postgres.onAsk;
    let asked = 0;
    host.postgres.onAsk = (target) => {
      asked += 1;
      return asked > 4 ? open(target) : { kind: "not-ready", why: "the database system is starting up" };
    };
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({ state: "drifted", drift: [expect.stringContaining("is starting up")] });
    expect(changes).toEqual([
      { kind: "wait", summary: "wait until Postgres answers (the database system is starting up)" },
    ]);
    const lines: string[] = [];
    await step.apply(changes[0], host, (line) => void lines.push(line));
    expect(lines).toContain("waiting for Postgres at 127.0.0.1:5432: the database system is starting up");
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("does not verify a database that opens only for another password", async () => {
    const host = await joinedBox();
    putDatabase(host, DATA, "16", { user: "pinning_user", password: "other", database: "pinning_service" });
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringMatching(/^PostgreSQL at 127\.0\.0\.1:5432 refuses user "pinning_user"/),
    });
  });

  it("does not verify a container that dies, and gives its last output", async () => {
    const host = await joinedBox();
    change(host, { status: "exited", exitCode: 1 });
    host.docker.logTexts.set(NAME, "FATAL: no space left on device");
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: "postgres-pinning does not work: its status is exited, exit code 1.",
      why: expect.stringContaining("no space left"),
    });
  });
});

describe("a database of somebody else", () => {
  const forms = [
    ["upstream's container and volume", putUpstreams],
    ["a volume without a container", putOlderData],
  ] as const;

  it.each(forms)("stops the run until it is named, then is kept: %s", async (_name, arrange) => {
    const host = early.copy();
    arrange(host);
    const standing = host.snapshot();
    await expect(join(host)).rejects.toMatchObject({
      exit: "foreign",
      problems: [{ subject: "postgres", remedy: expect.stringContaining("--adopt postgres") }],
    });
    expect(host.snapshot()).toEqual(standing);
    const role = host.files.textOf(`${DATA}/role.json`);
    await join(host, { adopt: ["postgres"] });
    expect(host.files.textOf(`${DATA}/role.json`)).toBe(role);
    expect(host.docker.volumes.get(VOLUME)?.labels).toEqual({});
    host.revive();
    await join(host);
    expect(host.writes).toEqual([]);
  });

  it("once adopted is repaired without being named again", async () => {
    const host = early.copy();
    putUpstreams(host);
    host.docker.putImage("postgres:16-alpine");
    await join(host, { adopt: ["postgres"] });
    host.docker.boxes.delete(NAME);
    host.revive();
    const { changes } = await join(host);
    expect(changes).toEqual([{ step: "postgres", change: UP }]);
  });
});

describe("a database elsewhere", () => {
  const set = { POSTGRES_HOST: "10.0.0.9", POSTGRES_PASSWORD: "long enough" };

  function withDatabase(): FakeMaster {
    const host = new FakeMaster();
    const role = { user: "pinning_user", password: "long enough", database: "pinning_service" };
    host.databasesElsewhere.set("10.0.0.9", role);
    return host;
  }

  it("is used as it is: no image, no container, no volume is made for it", async () => {
    const host = withDatabase();
    const { changes } = await join(host, { set });
    expect(changes.map(({ step: id }) => id)).not.toContain("postgres");
    expect([...host.docker.boxes.keys()]).not.toContain(NAME);
    expect([...host.docker.volumes.keys()]).not.toContain(VOLUME);
    expect([...host.docker.images.keys()]).not.toContain("postgres:16-alpine");
    const { finding } = await lookAt(await stepOn(host, "postgres"), host);
    expect(finding).toMatchObject({
      state: "ours",
      evidence: { database: "10.0.0.9:5432, external", system_identifier: expect.stringMatching(/^\d+$/) },
    });
  });

  it.each([
    ["settings", 'refuses user "pinning_user"', { password: "another one" }],
    ["settings", 'has no database "pinning_service"', { database: "other" }],
    ["unavailable", "connection refused", null],
  ] as const)(
    "that does not let us in stops the run (%s: %s), with nothing changed",
    async (exit, what, other) => {
      const host = withDatabase();
      const role = host.databasesElsewhere.get("10.0.0.9");
      if (other === null) host.databasesElsewhere.clear();
      else if (role !== undefined) host.databasesElsewhere.set("10.0.0.9", { ...role, ...other });
      const standing = host.snapshot();
      await expect(join(host, { set })).rejects.toMatchObject({ exit, what: expect.stringContaining(what) });
      expect(host.snapshot()).toEqual(standing);
    },
  );
});
