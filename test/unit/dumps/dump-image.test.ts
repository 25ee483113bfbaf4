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
  const found = await findDumpImage(host.docker, "16.4", "postgres:16-alpine");
  expect(found).toMatchObject({ name: "theirs/postgres:1", dataPath: "/data/there" });
});

test("takes any image of the server's major, whatever POSTGRES_IMAGE is", async () => {
  const host = hostWith({ "postgres:16-alpine": "16", "pgvector/pgvector:pg18": "18", "nginx:1": "18" });
  const found = await findDumpImage(host.docker, "18beta1", "postgres:16-alpine");
  expect(found.name).toBe("pgvector/pgvector:pg18");
});

test.each([
  ["there is none", {}, "its dump is made and restored with programs of the same major."],
  ["the server is newer", { "postgres:16-alpine": "16" }, "Here is only postgres:16-alpine (Postgres 16)."],
])("says what to pull if %s", async (_what, images, why) => {
  const refusal = await findDumpImage(hostWith(images).docker, "18.1 (Debian)", "postgres:16-alpine").catch(
    (thrown: unknown) => thrown,
  );
  expect(refusal).toBeInstanceOf(OperatorError);
  expect(refusal).toMatchObject({
    exit: "preflight",
    what: "There is no image of Postgres 18 on this machine.",
    remedy: "docker pull postgres:18-alpine",
  });
  expect((refusal as OperatorError).why).toContain(why);
});
