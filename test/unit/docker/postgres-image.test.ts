import { describe, expect, it } from "vitest";
import {
  findImageConflict,
  guessPostgresImage,
  holdsNothing,
  libcOfServer,
  readPostgresImage,
} from "../../../src/docker/postgres-image.ts";

const DATA_PATH = "/var/lib/postgresql/data";

describe("what an image of Postgres is", () => {
  it.each([
    [{ PG_MAJOR: "16", PG_VERSION: "16.4-1.pgdg120+2", PGDATA: DATA_PATH }, null, ["16", "glibc", DATA_PATH]],
    [{ PG_MAJOR: "16", PG_VERSION: "16.4", DOCKER_PG_LLVM_DEPS: "llvm15-dev" }, null, ["16", "musl", null]],
    [{ PG_MAJOR: "16" }, "NAME=x\nID=alpine\n", ["16", "musl", null]],
    [{ PG_MAJOR: "16", DOCKER_PG_LLVM_DEPS: "x" }, 'ID="debian"\n', ["16", "glibc", null]],
    [{ PG_VERSION: "17.2" }, "ID=unheard-of\n", ["17", null, null]],
    [{}, null, [null, null, null]],
  ])("is read from %j and %j", (env, osRelease, [major, libc, dataPath]) => {
    expect(readPostgresImage({ env, osRelease })).toEqual({
      major,
      libc,
      dataPath,
    });
  });

  it.each([
    ["postgres:16-alpine", "16", "musl"],
    ["postgres:16.4", "16", "glibc"],
    ["docker.io/library/postgres:17-bookworm", "17", "glibc"],
    ["postgres:latest", null, null],
    ["timescale/timescaledb:2.17.2-pg16", null, null],
    ["registry.example:5000/postgres:16", null, null],
    [`postgres@sha256:${"15".padEnd(64, "0")}`, null, null],
  ])("is known before it is pulled only for official tags: %s", (reference, major, libc) => {
    expect(guessPostgresImage(reference)).toEqual({ major, libc, dataPath: null });
  });

  it.each([
    ['/usr/lib/postgresql/16/bin/postgres "-c" "x"\n', "glibc"],
    ["/usr/local/bin/postgres\n", "musl"],
    ["/usr/local/pgsql/bin/postgres\n", null],
    [null, null],
  ])("the server that last ran is known by its path: %j", (options, libc) => {
    expect(libcOfServer(options)).toBe(libc);
  });
});

describe("findImageConflict", () => {
  const data = { volume: "v", major: "16", libc: "musl" } as const;
  const conflict = (image: object, facts: object = data) =>
    findImageConflict(
      "i",
      { major: "16", libc: "musl", dataPath: DATA_PATH, ...image },
      { ...data, ...facts },
      DATA_PATH,
    )?.why ?? null;

  it("has none for the same, and for what is unknown", () => {
    expect(conflict({})).toBeNull();
    expect(conflict({ major: null, libc: null, dataPath: null })).toBeNull();
    expect(conflict({ libc: "glibc" }, { libc: null })).toBeNull();
    expect(conflict({ dataPath: `${DATA_PATH}/pgdata` })).toBeNull();
    expect(conflict({ major: "17", libc: "glibc" }, { major: null })).toBeNull();
  });

  it("names another major, C library or place", () => {
    expect(conflict({ major: "17" })).toContain("Postgres 16 created the volume v");
    expect(conflict({ libc: "glibc" })).toContain("sort text differently");
    expect(conflict({ dataPath: "/bitnami" }, { major: null })).toContain("keeps its data in /bitnami");
    expect(conflict({ dataPath: `${DATA_PATH}2` })).toContain("keeps its data in");
  });
});

describe("holdsNothing", () => {
  it("is true only without any file of a user", () => {
    const bare = { "1": ["1259", "PG_VERSION", "1259_fsm"], "4": [], "5": ["13757"] };
    const judged = (databases: Record<string, readonly string[]>, tablespaces: readonly string[] = []) =>
      holdsNothing(new Map(Object.entries(databases)), tablespaces);
    expect(judged(bare)).toBe(true);
    expect(judged({ ...bare, "16384": [] })).toBe(false);
    expect(judged({ ...bare, "5": ["16384"] })).toBe(false);
    expect(judged({ ...bare, "5": ["24001_fsm"] })).toBe(false);
    expect(judged(bare, ["16400"])).toBe(false);
  });
});
