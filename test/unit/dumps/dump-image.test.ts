import { expect, test } from "vitest";
import { findDumpImage } from "../../../src/dumps/dump-image.ts";
import { OperatorError } from "../../../src/errors.ts";
import { FakeHost } from "../../support/fake-host.ts";

function hostWith(images: Readonly<Record<string, string>>): FakeHost {
  const host = new FakeHost();
  for (const [reference, major] of Object.entries(images)) {
    host.docker.imageEnvs.set(reference, { PG_MAJOR: major, PGDATA: "/data/there" });
    host.docker.putImage(reference, {});
  }
  return host;
}

test("takes the image of our own container before all others", async () => {
  const host = hostWith({ "postgres:16-alpine": "16", "theirs/postgres:1": "16" });
  host.docker.putContainer("postgres-pinning", { image: "theirs/postgres:1", imageId: "theirs/postgres:1" });
  const found = await findDumpImage(host.docker, "16.4", "postgres:16-alpine", async () => "16");
  expect(found).toMatchObject({ name: "theirs/postgres:1", dataPath: "/data/there" });
});

test("takes any image of the server's major, whatever POSTGRES_IMAGE is", async () => {
  const host = hostWith({ "postgres:16-alpine": "16", "pgvector/pgvector:pg18": "18", "nginx:1": "18" });
  const found = await findDumpImage(host.docker, "18beta1", "postgres:16-alpine", async () => "18");
  expect(found.name).toBe("pgvector/pgvector:pg18");
});

test.each([
  ["there is none", {}, "its dump is made and restored with programs of the same major."],
  ["the server is newer", { "postgres:16-alpine": "16" }, "Here is only postgres:16-alpine (Postgres 16)."],
])("says what to pull if %s", async (_what, images, why) => {
  const refusal = await findDumpImage(
    hostWith(images).docker,
    "18.1 (Debian)",
    "postgres:16-alpine",
    async () => "18",
  ).catch((thrown: unknown) => thrown);
  expect(refusal).toBeInstanceOf(OperatorError);
  expect(refusal).toMatchObject({
    exit: "preflight",
    what: "There is no image of Postgres 18 with its own programs on this machine.",
    remedy: "docker pull postgres:18-alpine",
  });
  expect((refusal as OperatorError).why).toContain(why);
});

test("an image whose pg_dump is of another major is passed over, and named if there is no other", async () => {
  const images = { "theirs/postgres:1": "16", "postgres:16-alpine": "16" };
  const host = hostWith(images);
  host.docker.putContainer("postgres-pinning", { image: "theirs/postgres:1", imageId: "theirs/postgres:1" });
  const theirs = (await host.docker.image("theirs/postgres:1"))?.id;
  const good = await findDumpImage(host.docker, "16.4", undefined, async (id) =>
    id === theirs ? "17" : "16",
  );
  expect(good.name).toBe("postgres:16-alpine");
  const none = await findDumpImage(host.docker, "16.4", undefined, async (id) =>
    id === theirs ? "17" : null,
  ).catch((thrown: unknown) => thrown);
  expect((none as OperatorError).why).toContain(
    "theirs/postgres:1 (Postgres 16, but its pg_dump and pg_restore are 17), postgres:16-alpine (Postgres 16, without pg_dump and pg_restore).",
  );
});
