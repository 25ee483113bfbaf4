import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createPostgres, openPostgresPool } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { type Authority, type Certificate, createAuthority } from "../support/certificates.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const authority = await createAuthority();
const other = await createAuthority();
afterAll(() => Promise.all([authority.close(), other.close()]));
const good = await authority.issue("DNS:localhost,IP:127.0.0.1");

const HBA = `
host not_here all 127.0.0.1/32 reject
hostnossl only_tls all 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
`;

let data = "";

async function useCertificate({ certificate, key }: Certificate): Promise<void> {
  await writeFile(join(data, "server.crt"), certificate);
  await writeFile(join(data, "server.key"), key);
  await chmod(join(data, "server.key"), 0o600);
}

describeOnPostgres(
  "TLS to a real server",
  (postgres) => {
    const reader = createPostgres({ connectTimeoutMs: 2_000 });
    let directory = "";
    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "fula-node-tls-"));
    });
    afterAll(() => rm(directory, { recursive: true }));

    async function fileOf({ certificate }: Pick<Authority, "certificate">): Promise<string> {
      const path = join(directory, "ca.pem");
      await writeFile(path, certificate);
      return path;
    }

    async function isEncrypted(target: PostgresTarget): Promise<unknown> {
      const [row] = await reader.query<{ ssl: boolean }>(
        target,
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
      );
      return row?.ssl;
    }

    test("each mode encrypts, or does not", async () => {
      const sslCa = await fileOf(authority);
      expect(await isEncrypted({ ...postgres.target, ssl: false })).toBe(false);
      expect(await isEncrypted({ ...postgres.target, ssl: "require" })).toBe(true);
      expect(await isEncrypted({ ...postgres.target, ssl: "verify-full", sslCa })).toBe(true);
      expect(await isEncrypted({ ...postgres.target, host: "localhost", ssl: "verify-full", sslCa })).toBe(
        true,
      );
    });

    test("a service's pool checks the certificate too", async () => {
      const limits = { maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 2_000 };
      const asked = async (target: PostgresTarget): Promise<unknown> => {
        const pool = openPostgresPool({ ...target, ...limits }, { applicationName: "test", log: () => {} });
        try {
          return await pool.query("SELECT 1 AS one");
        } finally {
          await pool.close();
        }
      };
      const sslCa = await fileOf(authority);
      expect(await asked({ ...postgres.target, ssl: "verify-full", sslCa })).toEqual([{ one: 1 }]);
      await expect(asked({ ...postgres.target, ssl: "verify-full" })).rejects.toThrow(/certificate/);
    });

    test("verify-full does not trust an unknown CA", async () => {
      expect(await reader.ask({ ...postgres.target, ssl: "verify-full" })).toMatchObject({
        kind: "certificate",
        says: expect.stringMatching(/certificate/),
      });
      const sslCa = await fileOf(other);
      expect(await reader.ask({ ...postgres.target, ssl: "verify-full", sslCa })).toMatchObject({
        kind: "certificate",
      });
      expect(await reader.ask({ ...postgres.target, ssl: "require", sslCa })).toMatchObject({
        kind: "certificate",
      });
    });

    test("a CA can be given as text, as an invite has it", async () => {
      const given = { ...postgres.target, ssl: "verify-full" } as const;
      expect(await reader.ask({ ...given, sslCaPem: authority.certificate })).toMatchObject({ kind: "open" });
      for (const ssl of ["verify-full", "require"] as const)
        expect(await reader.ask({ ...given, ssl, sslCaPem: other.certificate })).toMatchObject({
          kind: "certificate",
        });
    });

    test("the host's name is checked by verify-full alone", async () => {
      await useCertificate(await authority.issue("DNS:db.example.org"));
      await reload(postgres.target);
      const sslCa = await fileOf(authority);
      expect(await reader.ask({ ...postgres.target, ssl: "verify-full", sslCa })).toMatchObject({
        kind: "certificate",
        says: expect.stringMatching(/127\.0\.0\.1/),
      });
      expect(await reader.ask({ ...postgres.target, ssl: "require", sslCa })).toMatchObject({ kind: "open" });
      await useCertificate(good);
      await reload(postgres.target);
    });

    test("a machine that pg_hba.conf does not name is not allowed, encrypted or not", async () => {
      const target: PostgresTarget = { ...postgres.target, database: "not_here" };
      expect(await reader.ask({ ...target, ssl: "require" })).toMatchObject({
        kind: "not-allowed",
        says: expect.stringContaining("SSL encryption"),
      });
      expect(await reader.ask({ ...target, database: "only_tls" })).toMatchObject({ kind: "wants-tls" });
      expect(await reader.ask({ ...target, database: "only_tls", ssl: "require" })).toMatchObject({
        kind: "no-database",
      });
    });

    test("a certificate that has expired is not accepted", async () => {
      await useCertificate(await authority.issue("IP:127.0.0.1", { expired: true }));
      await reload(postgres.target);
      const sslCa = await fileOf(authority);
      expect(await reader.ask({ ...postgres.target, ssl: "verify-full", sslCa })).toMatchObject({
        kind: "certificate",
        says: expect.stringMatching(/expired/),
      });
      expect(await reader.ask({ ...postgres.target, ssl: "require" })).toMatchObject({ kind: "open" });
      await useCertificate(good);
      await reload(postgres.target);
    });

    test("a CA file that is missing or holds no certificate is an error of the settings", async () => {
      const empty = join(directory, "empty.pem");
      await writeFile(empty, "nothing here\n");
      for (const sslCa of [join(directory, "missing.pem"), empty])
        await expect(reader.ask({ ...postgres.target, ssl: "verify-full", sslCa })).rejects.toMatchObject({
          exit: "settings",
          what: expect.stringContaining(`POSTGRES_SSL_CA is ${sslCa}`),
        });
    });
  },
  {
    settings: ["ssl=on"],
    prepare: async (dataDirectory) => {
      data = dataDirectory;
      await writeFile(join(data, "pg_hba.conf"), HBA);
      await useCertificate(good);
    },
  },
);

/** Waits until a new backend was started with the new configuration. */
async function reload(target: PostgresTarget): Promise<void> {
  const loaded = async () =>
    (await sql<{ at: string }>(target, "SELECT pg_conf_load_time()::text AS at"))[0]?.at;
  const before = await loaded();
  await sql(target, "SELECT pg_reload_conf()");
  await expect.poll(loaded, { timeout: 10_000 }).not.toBe(before);
}
