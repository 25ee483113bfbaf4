import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { after, MINTED, replaceSaved } from "../../support/lost-settings.ts";
import { lookAt, stepOn } from "../../support/master-boxes.ts";

describe("the database's password", () => {
  const another = (host: FakeMaster): void => replaceSaved(host, "POSTGRES_PASSWORD", "another-one");

  it("is asked over the network, and stops the run if it does not open", async () => {
    const { host, step } = await after(another);
    const asked: unknown[] = [];
    const { onAsk } = host.postgres;
    host.postgres.onAsk = (target) => {
      asked.push(target);
      return onAsk(target);
    };
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: "The database at 127.0.0.1:5432 refused the password for pinning_user.",
      remedy: expect.stringContaining("--set-file POSTGRES_PASSWORD=PATH"),
    });
    expect(asked).toContainEqual(
      expect.objectContaining({ host: "127.0.0.1", port: 5432, password: "another-one" }),
    );
  });

  it("is compared with the stopped container's, if the database can't be asked", async () => {
    const { host, step } = await after((box) => {
      another(box);
      const container = box.docker.boxes.get(NAMES.postgres);
      if (container !== undefined) box.docker.boxes.set(NAMES.postgres, { ...container, status: "exited" });
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("differs from the one that postgres-pinning was created with"),
    });
  });

  it("is asked of an adopted database, too, before anything is written", async () => {
    const { host, step } = await after((box) => {
      another(box);
      const container = box.docker.boxes.get(NAMES.postgres);
      if (container !== undefined) box.docker.boxes.set(NAMES.postgres, { ...container, labels: {} });
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("refused the password"),
    });
  });

  it("also stops if the database that it opens is not there", async () => {
    const { host, step } = await after(() => {}, { set: { POSTGRES_DB: "other_name" } });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("other_name"),
    });
  });

  it("of a database elsewhere guards the secrets by its tables", async () => {
    const set = { POSTGRES_HOST: "10.0.0.9", POSTGRES_PASSWORD: "long enough" };
    const host = new FakeMaster();
    const role = { user: "pinning_user", password: "long enough", database: "pinning_service" };
    host.databasesElsewhere.set("10.0.0.9", role);
    const step = await stepOn(host, "env-file", { set });
    expect((await lookAt(step, host)).changes[0]?.["mint"]).toEqual([
      "MASTER_ID",
      ...MINTED.filter((key) => key !== "POSTGRES_PASSWORD"),
    ]);
    host.migrations.applied.add(1);
    host.rowCounts.set("api_keys", 2);
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringMatching(
        /SYSTEM_KEY, JWT_SECRET.* are missing, .*20 tables in the database at 10\.0\.0\.9:5432/,
      ),
    });
  });
});
