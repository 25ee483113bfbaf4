import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { RULES } from "../../src/settings/rules.ts";
import {
  type Environment,
  readIngestSettings,
  readPinningApiSettings,
  readWebuiSettings,
} from "../../src/settings/services.ts";
import { STORAGE_SETTINGS } from "../../src/settings/storage.ts";

const PRODUCTION = {
  NODE_ENV: "production",
  POSTGRES_PASSWORD: "password",
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
      metricsPort: 16_000,
      logLevel: "info",
      postgres: {
        host: "localhost",
        port: 5432,
        database: "pinning_service",
        user: "pinning_user",
        password: "password",
        ssl: false,
        maxConnections: 25,
        idleTimeoutMs: 30_000,
        connectTimeoutMs: 5_000,
      },
      cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
      edgePort: 6001,
      kuboUrl: "http://127.0.0.1:5001",
      masterId: null,
      systemKey: API.SYSTEM_KEY,
      walletTokens: false,
      serviceSecret: null,
      limits: { freeTierBytes: 524_288_000, maxPending: 10, deadlineSeconds: 86_400 },
      importMaxBytes: null,
      importBalanceDays: 0,
      fulaPerGibMonth: 3,
    });
  });

  it("takes CAR files only if that is switched on, up to a size", () => {
    const sizeIn = (values: Environment) => readPinningApiSettings({ ...API, ...values }).importMaxBytes;
    expect(sizeIn({ DAG_IMPORT_MAX_BYTES: "5" })).toBeNull();
    expect(sizeIn({ DAG_IMPORT_ENABLED: "true" })).toBe(838_860_800);
    expect(sizeIn({ DAG_IMPORT_ENABLED: "true", DAG_IMPORT_MAX_BYTES: "5" })).toBe(5);
  });

  it("takes the limits of requests, and counts an unusable secret of the trusted header as none", () => {
    const limits = { FREE_TIER_BYTES: "1", FREE_PENDING_PINS: "2", PIN_DEADLINE_MINUTES: "3" };
    expect(readPinningApiSettings({ ...API, ...limits }).limits).toEqual({
      freeTierBytes: 1,
      maxPending: 2,
      deadlineSeconds: 180,
    });
    expect(readPinningApiSettings({ ...API, CREDIT_GATE: "open" }).limits.maxPending).toBeNull();
    const secretOf = (secret: string) =>
      readPinningApiSettings({ ...API, FULA_PIN_SERVICE_SECRET: secret }).serviceSecret;
    expect(["disabled", " Disabled ", "", "  ", "a secret"].map(secretOf)).toEqual([
      null,
      null,
      null,
      null,
      "a secret",
    ]);
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
      postgres: { ssl: "require", maxConnections: 3 },
      cluster: { url: "http://writer:9999", basicAuth: "user:secret" },
    });
  });

  it("takes the mode of TLS beside the flag that upstream's images read, and the CA", () => {
    const { postgres } = readPinningApiSettings({
      ...API,
      POSTGRES_SSL: "true",
      POSTGRES_SSL_MODE: "verify-full",
      POSTGRES_SSL_CA: "/etc/fula-node/postgres-ca.pem",
    });
    expect(postgres).toMatchObject({ ssl: "verify-full", sslCa: "/etc/fula-node/postgres-ca.pem" });
    const given = `MI${"A".repeat(200)}`;
    expect(readPinningApiSettings({ ...API, POSTGRES_CA: given }).postgres.sslCaPem).toBe(
      `-----BEGIN CERTIFICATE-----\n${given}\n-----END CERTIFICATE-----\n`,
    );
  });

  it("lists everything that is wrong at once", () => {
    const read = () =>
      readPinningApiSettings({ NODE_ENV: "production", PORT: "70000", IPFS_CLUSTER_API_ADDR: "http://x" });
    expect(problemsOf(read).toSorted()).toEqual([
      "IPFS_CLUSTER_API_ADDR must be the multiaddr of an HTTP API, such as /ip4/127.0.0.1/tcp/9094.",
      "JWT_SECRET is missing.",
      "PORT must be a TCP port from 1 to 65535, in plain digits.",
      "POSTGRES_PASSWORD is missing.",
      "SESSION_SECRET is missing.",
      "SYSTEM_KEY is missing.",
    ]);
  });

  it.each([
    ["disabled", `must be ${RULES.systemKey.requirement}`],
    ["  DISABLED  ", `must be ${RULES.systemKey.requirement}`],
    ["elevenchars", `must be ${RULES.systemKey.requirement}`],
    ["", "is missing"],
  ])("refuses %j as SYSTEM_KEY", (key, why) => {
    expect(problemsOf(() => readPinningApiSettings({ ...API, SYSTEM_KEY: key }))).toContain(
      `SYSTEM_KEY ${why}.`,
    );
  });

  it.each([["0"], ["65536"], ["06000"], ["6000 "], ["-1"], ["6e3"]])("refuses %j as a port", (port) => {
    expect(problemsOf(() => readPinningApiSettings({ ...API, PORT: port }))).toEqual([
      "PORT must be a TCP port from 1 to 65535, in plain digits.",
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
      registration: "invite",
      cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
    });
  });

  it("takes prices, the pool, the quota of names and the cluster", () => {
    const given = {
      FREE_TIER_BYTES: "1000",
      FULA_PER_GB_MONTH: "0.25",
      CLUSTERNAME: "pool-a",
      NODE_NAMES_PER_OWNER: "7",
      NODE_REGISTRATION: "open",
      IPFS_CLUSTER_API_ADDR: "/dns4/writer/tcp/9999",
      CLUSTER_BASIC_AUTH: "u:p",
    };
    expect(readWebuiSettings({ ...WEBUI, ...given })).toMatchObject({
      pricing: { freeTierBytes: 1000, fulaPerGibMonth: 0.25 },
      pool: "pool-a",
      namesPerOwner: 7,
      registration: "open",
      cluster: { url: "http://writer:9999", basicAuth: "u:p" },
    });
  });

  it.each([
    ["FREE_TIER_BYTES", "-1"],
    ["FULA_PER_GB_MONTH", "cheap"],
    ["CLUSTERNAME", "a b"],
    ["NODE_NAMES_PER_OWNER", "0"],
    ["NODE_REGISTRATION", "closed"],
  ])("refuses %s=%s", (key, value) => {
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: value }))).toEqual([
      expect.stringContaining(`${key} must be `),
    ]);
  });

  it("is reached at STORAGE_API_URL, else at the edge's host, else at its own address", () => {
    const url = (given: Environment) => readWebuiSettings({ ...WEBUI, ...given }).publicUrl;
    const [api, host] = [{ STORAGE_API_URL: "https://api.example.org/" }, { PUBLIC_HOST: "m.example.org" }];
    expect(url({ ...api, ...host })).toBe("https://api.example.org");
    expect(url(host)).toBe("https://m.example.org");
    expect(url({ PUBLIC_HOST: "" })).toBe("http://127.0.0.1:3001");
  });

  it.each(["JWT_SECRET", "SESSION_SECRET"])("does not start in production without %s", (key) => {
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: undefined }))).toEqual([
      `${key} is missing.`,
    ]);
    expect(problemsOf(() => readWebuiSettings({ ...WEBUI, [key]: undefined, NODE_ENV: "test" }))).toEqual([]);
  });
});

describe("the settings of the ingest", () => {
  it("have upstream's defaults, except that the quota is strict", () => {
    const defaults = {
      bindHost: "::",
      port: 3601,
      metricsPort: 13_601,
      logLevel: "info",
      kuboUrl: "http://127.0.0.1:5001",
      storageApiUrl: null,
      storageApiCa: null,
      quotaMode: "strict",
      maxBlockBytes: 2_097_152,
      maxConcurrent: 32,
      reserveBytes: 1e9,
      noAuth: false,
    };
    expect(readIngestSettings({})).toEqual(defaults);
    expect(readIngestSettings({ STORAGE_API_URL: "", INGEST_PORT: "", KUBO_API: undefined })).toEqual(
      defaults,
    );
  });

  it("are read from upstream's keys", () => {
    const settings = readIngestSettings({
      INGEST_PORT: "1",
      INGEST_METRICS_PORT: "2",
      LOG_LEVEL: "debug",
      INGEST_BIND: "::1",
      KUBO_API: "https://kubo.example:5001/api//",
      STORAGE_API_URL: "https://cloud.example/",
      INGEST_QUOTA_MODE: "open",
      INGEST_MAX_BLOCK_BYTES: "262144",
      INGEST_MAX_CONCURRENT: "1",
      INGEST_NO_AUTH: "1",
      DISK_RESERVE: "5GiB",
      NODE_ENV: "development",
    });
    expect(settings).toEqual({
      bindHost: "::1",
      port: 1,
      metricsPort: 2,
      logLevel: "debug",
      kuboUrl: "https://kubo.example:5001/api",
      storageApiUrl: "https://cloud.example",
      storageApiCa: null,
      quotaMode: "open",
      maxBlockBytes: 262_144,
      maxConcurrent: 1,
      reserveBytes: 5 * 1024 ** 3,
      noAuth: true,
    });
  });

  it("are refused all at once, and no credential is repeated", () => {
    const found = problemsOf(() =>
      readIngestSettings({
        INGEST_PORT: "0",
        KUBO_API: "/ip4/127.0.0.1/tcp/5001",
        STORAGE_API_URL: "https://user:hunter2@cloud.example",
        INGEST_QUOTA_MODE: "closed",
        INGEST_MAX_BLOCK_BYTES: "4MiB",
        INGEST_MAX_CONCURRENT: "99999",
        INGEST_NO_AUTH: "1",
        NODE_ENV: "production",
      }),
    );
    expect(found).toEqual([
      `INGEST_PORT must be ${RULES.port.requirement}.`,
      `KUBO_API must be ${RULES.apiUrl.requirement}.`,
      `STORAGE_API_URL must be ${RULES.apiUrl.requirement}.`,
      `INGEST_QUOTA_MODE must be ${RULES.quotaMode.requirement}.`,
      "INGEST_MAX_BLOCK_BYTES must be a whole number from 1 to 67108864.",
      "INGEST_MAX_CONCURRENT must be a whole number from 1 to 1024.",
      "INGEST_NO_AUTH must be 0 in production: without tokens, anyone could fill this node's disk.",
    ]);
    expect(found.join()).not.toContain("hunter2");
  });

  it.each(["true", "yes", "2"])("INGEST_NO_AUTH=%s is no yes and no no", (value) => {
    expect(problemsOf(() => readIngestSettings({ INGEST_NO_AUTH: value }))).toEqual([
      "INGEST_NO_AUTH must be 0 or 1.",
    ]);
  });
});

describe("one set of rules", () => {
  const INGEST = { KUBO_API: "http://127.0.0.1:5001" };
  /** What a service calls a setting that has another name on the box. */
  const ON_THE_BOX: Readonly<Record<string, string>> = {
    PORT: "PINNING_API_PORT",
    PINNING_SYSTEM_KEY: "SYSTEM_KEY",
  };
  const SPECS = new Map([...MASTER_SETTINGS, ...STORAGE_SETTINGS].map((spec) => [spec.key, spec]));
  const SHARED = [
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "POSTGRES_SSL",
    "JWT_SECRET",
    "SESSION_SECRET",
    "IPFS_CLUSTER_API_ADDR",
    "CLUSTER_BASIC_AUTH",
    "LOG_LEVEL",
  ];
  const odd = fc.constantFrom("0", "1", "65536", "1025", "true", "disabled    ", "/ip4/1.2.3.4/tcp/1");
  const values = fc.oneof(
    odd,
    fc.string({ minLength: 1, unit: "grapheme" }),
    fc.constantFrom("https://u@h.example", "http://h.example/x/", "u:p", "a b", "strict", "closed", "3.25"),
  );

  it.each<[string, (environment: Environment) => unknown, Environment, readonly string[]]>([
    [
      "pinning-api",
      readPinningApiSettings,
      API,
      [
        ...SHARED,
        "PORT",
        "PINNING_EDGE_PORT",
        "PINNING_METRICS_PORT",
        "SYSTEM_KEY",
        "IPFS_API_ADDR",
        "FULA_PIN_SERVICE_SECRET",
        "FREE_TIER_BYTES",
        "CREDIT_GATE",
        "FREE_PENDING_PINS",
        "PIN_DEADLINE_MINUTES",
        "DAG_IMPORT_ENABLED",
        "DAG_IMPORT_MAX_BYTES",
        "DAG_IMPORT_MIN_BALANCE_DAYS",
        "FULA_PER_GB_MONTH",
      ],
    ],
    [
      "webui",
      readWebuiSettings,
      WEBUI,
      [
        ...SHARED,
        "WEBUI_PORT",
        "WEBUI_METRICS_PORT",
        "PINNING_SYSTEM_KEY",
        "FREE_TIER_BYTES",
        "FULA_PER_GB_MONTH",
        "CLUSTERNAME",
        "NODE_NAMES_PER_OWNER",
        "NODE_REGISTRATION",
      ],
    ],
    [
      "ingest",
      readIngestSettings,
      INGEST,
      [
        "INGEST_PORT",
        "INGEST_METRICS_PORT",
        "LOG_LEVEL",
        "INGEST_BIND",
        "STORAGE_API_URL",
        "INGEST_QUOTA_MODE",
        "INGEST_MAX_BLOCK_BYTES",
        "INGEST_MAX_CONCURRENT",
      ],
    ],
  ])("%s takes a value exactly if join takes it, and says the same of it", (_, read, base, keys) => {
    fc.assert(
      fc.property(fc.constantFrom(...keys), values, (key, value) => {
        const rule = SPECS.get(ON_THE_BOX[key] ?? key)?.rule;
        const wanted = rule?.holds(value) === true ? [] : [`${key} must be ${rule?.requirement ?? ""}.`];
        expect(problemsOf(() => read({ ...base, [key]: value }))).toEqual(wanted);
      }),
      { numRuns: 300 },
    );
  });
});
