import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { type FakeMaster, PACKAGE_DIR, putDatabase } from "../../support/fake-master.ts";
import { joined, loseFile, replaceSaved } from "../../support/lost-settings.ts";
import { join, type JoinOptions, LAYOUT, prepare, savedValues } from "../../support/master-boxes.ts";

const { postgres: POSTGRES, postgresVolume: VOLUME } = NAMES;
const DATA = `/var/lib/docker/volumes/${VOLUME}/_data`;

async function expectHalt(
  host: FakeMaster,
  subjects: readonly string[],
  wishes: JoinOptions = {},
): Promise<void> {
  host.revive();
  const standing = host.snapshot();
  const problems = subjects.map((subject): unknown => expect.objectContaining({ subject }));
  for (const dryRun of [true, false]) {
    await expect(join(host, { ...wishes, dryRun })).rejects.toMatchObject({
      exit: "foreign",
      changed: undefined,
      problems,
    });
  }
  expect(host.writes).toEqual([]);
  expect(host.snapshot()).toEqual(standing);
}

describe("a run halts with nothing changed", () => {
  it.each<readonly [string, (host: FakeMaster) => void, readonly string[]]>([
    [
      "a foreign postgres-pinning",
      (host) => {
        host.docker.boxes.delete(POSTGRES);
        host.docker.putContainer(POSTGRES, { image: "postgres:12" });
      },
      ["postgres"],
    ],
    [
      "a foreign compose file",
      (host) => host.files.put(LAYOUT.composeFile, "services: {}\n"),
      ["compose-file"],
    ],
    [
      "the .env lost, with live data",
      (host) => {
        loseFile(host);
        host.docker.boxes.clear();
      },
      ["env-file"],
    ],
    [
      "a volume of another Postgres major",
      (host) => host.files.put(`${DATA}/PG_VERSION`, "15\n"),
      ["postgres"],
    ],
    [
      "a wrong password",
      (host) =>
        putDatabase(host, DATA, "16", {
          user: "pinning_user",
          password: "other",
          database: "pinning_service",
        }),
      ["env-file"],
    ],
    ["the signing key gone, with snapshots", (host) => host.files.drop(LAYOUT.signingKey), ["signing-key"]],
    [
      "a foreign cron file",
      (host) => host.files.put("/etc/cron.d/fula-replication-sweep", "* * * * * root true\n"),
      ["sweep-cron"],
    ],
    [
      "several things at once: all are listed",
      (host) => {
        host.files.drop(LAYOUT.signingKey);
        host.files.put(LAYOUT.composeFile, "services: {}\n");
        const webui = host.docker.boxes.get(NAMES.webui);
        if (webui !== undefined) host.docker.boxes.set(NAMES.webui, { ...webui, labels: {} });
      },
      ["compose-file", "services", "signing-key"],
    ],
  ])("%s", async (_name, spoil, subjects) => {
    const host = joined.copy();
    spoil(host);
    await expectHalt(host, subjects);
  });

  it("--adopt names something that can't be adopted", async () => {
    const host = joined.copy();
    host.files.drop(LAYOUT.signingKey);
    await expectHalt(host, ["signing-key"], { adopt: ["signing-key", "env-file"] });
  });

  it("a given secret differs from the one that existing data was made with", async () => {
    await expectHalt(joined.copy(), ["env-file"], { set: { ENCRYPTION_KEY: "ab".repeat(32) } });
  });

  it("SYSTEM_KEY disabled", async () => {
    const host = joined.copy();
    replaceSaved(host, "SYSTEM_KEY", "disabled");
    await expect(prepare(host)).rejects.toThrow(/SYSTEM_KEY in \.env/);
  });
});

describe("an engine that was down when the run began", () => {
  it("shows existing data only after it starts: the run halts before it writes anything else", async () => {
    const host = joined.copy();
    loseFile(host);
    host.files.put(`${PACKAGE_DIR}/dist/cli.js`, "// another bundle\n");
    host.docker.boxes.clear();
    host.stopEngine();
    const standing = host.snapshot().files;
    await expect(join(host)).rejects.toMatchObject({
      exit: "foreign",
      changed: expect.stringMatching(/^done and kept: docker /),
      problems: [{ subject: "env-file", what: expect.stringContaining(`Postgres volume ${VOLUME}`) }],
    });
    expect(host.writes.filter((write) => !write.includes(LAYOUT.journal))).toEqual([
      "system.enableUnit docker",
    ]);
    expect({ ...host.snapshot().files, [LAYOUT.journal]: "" }).toEqual({ ...standing, [LAYOUT.journal]: "" });
  });

  it("allows to recover lost secrets after it starts", async () => {
    const host = joined.copy();
    const old = savedValues(host);
    loseFile(host);
    host.stopEngine();
    await join(host);
    const saved = savedValues(host);
    for (const key of ["POSTGRES_PASSWORD", "JWT_SECRET", "ENCRYPTION_KEY"])
      expect(saved[key]).toBe(old[key]);
  });
});
