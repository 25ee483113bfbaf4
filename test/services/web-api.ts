import { onTestFinished } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { StatusPageSettings, WebuiSettings } from "../../src/settings/services.ts";
import { openPool } from "../support/names-database.ts";
import { expectDescribed } from "./described.ts";
import { type Serving, startService } from "./serving.ts";

/** Settings of a status page. Nobody answers behind it. */
export const STATUS_PAGE: StatusPageSettings = {
  systemKey: "system-key-for-tests",
  sessionSecret: "session-secret-for-tests",
  kuboUrl: "http://127.0.0.1:9",
  pinningUrl: "http://127.0.0.1:9",
  hasEdge: false,
  recordsDir: null,
};

/** Settings of a webui on a free port. No cluster answers. */
export function webuiSettings(target: PostgresTarget, changes: Partial<WebuiSettings> = {}): WebuiSettings {
  return {
    bindHost: "127.0.0.1",
    port: 0,
    metricsPort: 0,
    logLevel: "info",
    postgres: { ...target, maxConnections: 5, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 },
    pricing: { freeTierBytes: 1_000, fulaPerGibMonth: 3 },
    pool: "pool-a",
    masterId: null,
    namesPerOwner: 5,
    registration: "open",
    cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
    walletTokens: false,
    encryptionKey: "0123456789abcdef".repeat(4),
    publicUrl: "https://storage.example.org",
    billing: null,
    statusPage: STATUS_PAGE,
    ...changes,
  };
}

/** Runs the webui on a database for the length of a test. */
export async function startWebui(
  target: PostgresTarget,
  changes: Partial<WebuiSettings> = {},
): Promise<Serving> {
  const settings = webuiSettings(target, changes);
  const cluster = openCluster({ endpoint: settings.cluster.url });
  onTestFinished(() => cluster.close());
  const webui = await startService(
    (deps) => openStorageService(settings, { ...deps, openCluster: () => cluster }),
    openPool(settings.postgres, 5),
  );
  onTestFinished(() => webui.stop());
  return webui;
}

/** One request; an answer without a body has `body: null`. Throws if the OpenAPI documents do not describe the answer. */
export async function ask(
  { url }: Serving,
  path: string,
  init: RequestInit = {},
): Promise<{ readonly status: number; readonly body: unknown; readonly headers: Headers }> {
  const response = await fetch(`${url}${path}`, init);
  const text = await response.text();
  expectDescribed(init.method ?? "GET", path, { status: response.status, headers: response.headers, text });
  return { status: response.status, body: text === "" ? null : JSON.parse(text), headers: response.headers };
}

/** A request with a JSON body. */
export function send(
  method: "POST" | "DELETE",
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
) {
  return { method, body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers } };
}
