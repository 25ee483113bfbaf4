import { describe, expect, test } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { readIngestSettings } from "../../../src/settings/ingest.ts";

function problems(environment: Record<string, string>): readonly string[] {
  try {
    readIngestSettings(environment);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    expect(error.exit).toBe("settings");
    return error.problems.map(({ what }) => what);
  }
  return [];
}

describe("the settings of the ingest", () => {
  test("have upstream's defaults, except that the quota is strict", () => {
    const defaults = {
      bindHost: "0.0.0.0",
      port: 3601,
      kuboUrl: "http://127.0.0.1:5001",
      storageApiUrl: null,
      quotaMode: "strict",
      maxBlockBytes: 2_097_152,
      maxConcurrent: 32,
      noAuth: false,
    };
    expect(readIngestSettings({})).toEqual(defaults);
    expect(readIngestSettings({ STORAGE_API_URL: "", INGEST_PORT: "", KUBO_API: undefined })).toEqual(
      defaults,
    );
  });

  test("are read from upstream's keys", () => {
    const settings = readIngestSettings({
      INGEST_PORT: "1",
      INGEST_BIND: "::1",
      KUBO_API: "https://kubo.example:5001/api//",
      STORAGE_API_URL: "https://cloud.example/",
      INGEST_QUOTA_MODE: "open",
      INGEST_MAX_BLOCK_BYTES: "262144",
      INGEST_MAX_CONCURRENT: "1",
      INGEST_NO_AUTH: "1",
      NODE_ENV: "development",
    });
    expect(settings).toEqual({
      bindHost: "::1",
      port: 1,
      kuboUrl: "https://kubo.example:5001/api",
      storageApiUrl: "https://cloud.example",
      quotaMode: "open",
      maxBlockBytes: 262_144,
      maxConcurrent: 1,
      noAuth: true,
    });
  });

  test("take a size or count that is not positive for the default, as upstream does", () => {
    for (const value of ["0", "-1", "-999999999"]) {
      const settings = readIngestSettings({ INGEST_MAX_BLOCK_BYTES: value, INGEST_MAX_CONCURRENT: value });
      expect(settings).toMatchObject({ maxBlockBytes: 2_097_152, maxConcurrent: 32 });
    }
  });

  test("are refused all at once, and no credential is repeated", () => {
    const found = problems({
      INGEST_PORT: "0",
      KUBO_API: "/ip4/127.0.0.1/tcp/5001",
      STORAGE_API_URL: "https://user:hunter2@cloud.example",
      INGEST_QUOTA_MODE: "closed",
      INGEST_MAX_BLOCK_BYTES: "4MiB",
      INGEST_MAX_CONCURRENT: "99999",
      INGEST_NO_AUTH: "1",
      NODE_ENV: "production",
    });
    expect(found).toEqual([
      "INGEST_PORT must be a TCP port.",
      "KUBO_API must be an http(s) URL without credentials, query or fragment.",
      "STORAGE_API_URL must be an http(s) URL without credentials, query or fragment.",
      "INGEST_QUOTA_MODE must be strict or open.",
      "INGEST_MAX_BLOCK_BYTES must be a whole number up to 67108864.",
      "INGEST_MAX_CONCURRENT must be a whole number up to 1024.",
      "INGEST_NO_AUTH must not be set in production: anybody could fill this node's disk.",
    ]);
    expect(found.join()).not.toContain("hunter2");
  });

  test.each(["true", "yes", "2"])("INGEST_NO_AUTH=%s is no yes and no no", (value) => {
    expect(problems({ INGEST_NO_AUTH: value })).toEqual(["INGEST_NO_AUTH must be 0 or 1."]);
  });
});
