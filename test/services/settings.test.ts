import { describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { readPinningApiSettings, readWebuiSettings } from "../../src/settings/services.ts";

const PRODUCTION = {
  NODE_ENV: "production",
  POSTGRES_PASSWORD: "p",
  JWT_SECRET: "j".repeat(16),
  SESSION_SECRET: "s".repeat(16),
};
const API = { ...PRODUCTION, SYSTEM_KEY: "k".repeat(12) };
const WEBUI = { ...PRODUCTION, PINNING_SYSTEM_KEY: "k".repeat(12) };

function problemsOf(read: () => unknown): readonly string[] {
  try {
    read();
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    expect(error.exit).toBe("settings");
    return error.problems.map(({ what }) => what);
  }
  return [];
}

describe("readPinningApiSettings", () => {
  it("has upstream's defaults", () => {
    expect(readPinningApiSettings(API)).toEqual({
      bindHost: "127.0.0.1",
      port: 6000,
      postgres: {
        host: "localhost",
        port: 5432,
        database: "pinning_service",
        user: "pinning_user",
        password: "p",
        ssl: false,
        maxConnections: 25,
        idleTimeoutMs: 30_000,
        connectTimeoutMs: 5_000,
      },
      cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
    });
  });

  it("takes what it is given, and a blank for not given", () => {
    const settings = readPinningApiSettings({
      ...API,
      PORT: "6001",
      BIND_HOST: "",
      POSTGRES_SSL: "true",
      POSTGRES_MAX_CONNECTIONS: "3",
      IPFS_CLUSTER_API_ADDR: "/dns4/writer/tcp/9999",
      CLUSTER_BASIC_AUTH: "user:secret",
    });
    expect(settings).toMatchObject({
      port: 6001,
      bindHost: "127.0.0.1",
      postgres: { ssl: true, maxConnections: 3 },
      cluster: { url: "http://writer:9999", basicAuth: "user:secret" },
    });
  });

  it("lists everything that is wrong at once", () => {
    const read = () =>
      readPinningApiSettings({ NODE_ENV: "production", PORT: "70000", IPFS_CLUSTER_API_ADDR: "http://x" });
    expect(problemsOf(read).toSorted()).toEqual([
      "IPFS_CLUSTER_API_ADDR must be a multiaddr such as /ip4/127.0.0.1/tcp/9094.",
      "JWT_SECRET is missing in production.",
      "PORT must be a TCP port.",
      "POSTGRES_PASSWORD is missing.",
      "SESSION_SECRET is missing in production.",
      "SYSTEM_KEY is missing.",
    ]);
  });

  it.each([
    ["disabled", "must not be the word `disabled`"],
    ["DISABLED", "must not be the word `disabled`"],
    ["elevenchars", "must have at least 12 characters"],
    ["", "is missing"],
  ])("refuses %j as SYSTEM_KEY", (key, why) => {
    expect(problemsOf(() => readPinningApiSettings({ ...API, SYSTEM_KEY: key }))).toContain(
      `SYSTEM_KEY ${why}.`,
    );
  });

  it.each([["0"], ["65536"], ["06000"], ["6000 "], ["-1"], ["6e3"]])("refuses %j as a port", (port) => {
    expect(problemsOf(() => readPinningApiSettings({ ...API, PORT: port }))).toEqual([
      "PORT must be a TCP port.",
    ]);
  });

  it("repeats no secret in an error", () => {
    const wrong = { ...API, POSTGRES_PASSWORD: "hunter2", SYSTEM_KEY: "hunter2", PORT: "x" };
    const thrown = (() => {
      try {
        return readPinningApiSettings(wrong);
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toBeInstanceOf(OperatorError);
    expect(JSON.stringify(thrown) + String((thrown as Error).stack)).not.toContain("hunter2");
  });
});

describe("readWebuiSettings", () => {
  it("has upstream's defaults", () => {
    expect(readWebuiSettings(WEBUI)).toMatchObject({
      bindHost: "127.0.0.1",
      port: 3001,
      pricing: { freeTierBytes: 524_288_000, fulaPerGibMonth: 3 },
      pool: null,
      namesPerOwner: 5,
      cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
    });
  });

  it("takes prices, the pool, the quota of names and the cluster", () => {
    const given = {
      FREE_TIER_BYTES: "1000",
      FULA_PER_GB_MONTH: "0.25",
      CLUSTERNAME: "pool-a",
      NODE_NAMES_PER_OWNER: "7",
      IPFS_CLUSTER_API_ADDR: "/dns4/writer/tcp/9999",
      CLUSTER_BASIC_AUTH: "u:p",
    };
    expect(readWebuiSettings({ ...WEBUI, ...given })).toMatchObject({
      pricing: { freeTierBytes: 1000, fulaPerGibMonth: 0.25 },
      pool: "pool-a",
      namesPerOwner: 7,
      cluster: { url: "http://writer:9999", basicAuth: "u:p" },
    });
  });

  it.each([
    ["FREE_TIER_BYTES", "-1"],
    ["FULA_PER_GB_MONTH", "cheap"],
    ["CLUSTERNAME", "a b"],
    ["NODE_NAMES_PER_OWNER", "0"],
  ])("refuses %s=%s", (key, value) => {
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: value }))).toEqual([
      expect.stringContaining(`${key} must be `),
    ]);
  });

  it.each(["JWT_SECRET", "SESSION_SECRET"])("does not start in production without %s", (key) => {
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: undefined }))).toEqual([
      `${key} is missing in production.`,
    ]);
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: undefined, NODE_ENV: "test" }))).toEqual([]);
  });
});
