import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
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

  it("reads the desired major from the tag alone", async () => {
    for (const image of [
      "registry.example:5000/library/postgres:16-alpine",
      "postgres:16.4@sha256:15aa".padEnd("postgres:16.4@sha256:".length + 64, "0"),
      `postgres@sha256:${"15".padEnd(64, "0")}`,
      "postgres:latest",
    ]) {
      const host = early.copy();
      host.docker.registry.set(image, {});
      putOlderData(host, "16");
      const { finding } = await lookAt(
        await stepOn(host, "postgres", { set: { POSTGRES_IMAGE: image } }),
        host,
      );
      expect(finding, image).not.toHaveProperty("why", expect.stringContaining("created the volume"));
    }
    const host = early.copy();
    putOlderData(host, "16");
    const set = { POSTGRES_IMAGE: "registry.example:5000/postgres:17" };
    expect((await lookAt(await stepOn(host, "postgres", { set }), host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("Postgres 16 created the volume"),
    });
  });

  it("does not verify a database that opens only for another password", async () => {
    const host = await joinedBox();
    putDatabase(host, DATA, "16", { user: "pinning_user", password: "other", database: "pinning_service" });
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringMatching(/^pinning_user cannot log in to the database at .*: wrong-password/),
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
    ["settings", "wrong-password", { password: "another one" }],
    ["settings", "no-database", { database: "other" }],
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
