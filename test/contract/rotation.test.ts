import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { reencryptSealed, revokeOtherKeys, surveySealed } from "../../src/accounts/key-change.ts";
import { openText, sealText, signClaims } from "../../src/accounts/api-key.ts";
import { accountOfKey } from "../../src/accounts/usage.ts";
import { createPostgres, type PostgresPool } from "../../src/database/postgres.ts";
import { postgresWriter } from "../../src/database/postgres-writer.ts";
import { openJournal } from "../../src/engine/journal.ts";
import { run } from "../../src/engine/run.ts";
import { random } from "../../src/machine/clock.ts";
import { openingSteps } from "../../src/rotation/rotation-steps.ts";
import { MASTER_BASE_DIR, masterLayout } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { FakeHost } from "../support/fake-host.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const LAYOUT = masterLayout(MASTER_BASE_DIR);
const reader = createPostgres();

/** A box with `.env` and the real database. */
function boxOf(target: PostgresTarget): FakeHost {
  const host = new FakeHost();
  host.files.put(LAYOUT.envFile, `POSTGRES_PASSWORD=${target.password}\n`, 0o600);
  Object.assign(host, { postgres: { ...reader, ...postgresWriter } });
  return host;
}

/** The first half of a rotation of the database's password. */
function rotatePassword(host: FakeHost, target: PostgresTarget, next: string) {
  const values = (key: string): string | undefined =>
    ({
      POSTGRES_HOST: target.host,
      POSTGRES_PORT: String(target.port),
      POSTGRES_DB: target.database,
      POSTGRES_USER: target.user,
      POSTGRES_PASSWORD: target.password,
    })[key];
  return run({
    steps: openingSteps({
      secret: "database-password",
      layout: LAYOUT,
      nodePath: "node",
      values,
      makeNext: () => next,
    }),
    host,
    journal: openJournal({
      files: host.files,
      path: LAYOUT.journal,
      attempt: "1",
      version: "0",
      now: () => new Date(0),
    }),
    listen: () => {},
    ask: null,
    dryRun: false,
    yes: true,
    adopted: new Set(),
    consents: new Set(),
  });
}

describeOnPostgres("the password of the database's role", (postgres) => {
  let roles = 0;
  const makeRole = async (): Promise<PostgresTarget> => {
    const database = await postgres.createDatabase();
    const user = `modest_${(roles += 1)}`;
    await sql(database, `CREATE ROLE ${user} LOGIN PASSWORD 'old-password'`);
    return { ...database, user, password: "old-password" };
  };
  const answers = async (target: PostgresTarget, password: string) =>
    (await reader.ask({ ...target, password })).kind;

  test("a role changes its own, and only the new one logs in", async () => {
    const target = await makeRole();
    await rotatePassword(boxOf(target), target, 'a "new" $pass#word');
    expect(await answers(target, 'a "new" $pass#word')).toBe("open");
    expect(await answers(target, "old-password")).toBe("wrong-password");
  });

  test.each(["before", "after"] as const)(
    "interrupted %s the server changes it: run again, and it is finished",
    async (moment) => {
      const target = await makeRole();
      const host = boxOf(target);
      const real = host.postgres.setPassword.bind(host.postgres);
      host.postgres.setPassword = async (...given) => {
        if (moment === "after") await real(...given);
        throw new Error("killed");
      };
      await expect(rotatePassword(host, target, "new-password")).rejects.toThrow("killed");
      expect(await answers(target, moment === "after" ? "new-password" : "old-password")).toBe("open");
      expect(host.files.textOf(LAYOUT.envFile)).toBe("POSTGRES_PASSWORD=old-password\n");
      host.postgres.setPassword = real;
      await rotatePassword(host, target, "not used: the first one is saved");
      expect(host.files.textOf(LAYOUT.envFile)).toBe("POSTGRES_PASSWORD=new-password\n");
      expect(await answers(target, "new-password")).toBe("open");
      expect(await answers(target, "old-password")).toBe("wrong-password");
    },
  );

  test("a server that refuses says so, and what to do; then the administrator's change is enough", async () => {
    const target = await makeRole();
    const host = boxOf(target);
    const real = host.postgres.setPassword.bind(host.postgres);
    host.postgres.setPassword = () =>
      postgresWriter.session(target, async (database) => {
        await database.query("SET default_transaction_read_only = on");
      });
    await expect(rotatePassword(host, target, "new-password")).rejects.toMatchObject({ exit: "unhealthy" });
    await sql(postgres.target, `ALTER ROLE ${target.user} PASSWORD 'new-password'`);
    host.postgres.setPassword = () => Promise.reject(new Error("must not be called"));
    await rotatePassword(host, target, "new-password");
    host.postgres.setPassword = real;
    expect(host.files.textOf(LAYOUT.envFile)).toBe("POSTGRES_PASSWORD=new-password\n");
  });

  test("the server gets a verifier with our salt, not the password", async () => {
    const target = await makeRole();
    await postgresWriter.setPassword(target, "new-password", "00".repeat(16));
    const [row] = await sql(postgres.target, "SELECT rolpassword AS p FROM pg_authid WHERE rolname = $1", [
      target.user,
    ]);
    expect(row?.["p"]).toContain(`:${Buffer.alloc(16).toString("base64")}$`);
    expect(await answers(target, "new-password")).toBe("open");
  });

  test("neither password logs in: nothing is written to .env", async () => {
    const target = await makeRole();
    await sql(postgres.target, `ALTER ROLE ${target.user} PASSWORD 'a-third-one'`);
    const host = boxOf(target);
    await expect(rotatePassword(host, target, "new-password")).rejects.toMatchObject({
      exit: "settings",
      what: expect.stringContaining("neither the old nor the new password"),
    });
    expect(host.files.textOf(LAYOUT.envFile)).toBe("POSTGRES_PASSWORD=old-password\n");
  });

  test("a change that the server refuses is no bug, and names no password", async () => {
    const target = await makeRole();
    await sql(postgres.target, `ALTER ROLE ${target.user} SET default_transaction_read_only = on`);
    const thrown: unknown = await postgresWriter
      .setPassword(target, "new-password", random.hex(16))
      .catch((error: unknown) => error);
    expect(thrown).toMatchObject({ exit: "settings", what: expect.stringContaining("read-only") });
    expect(JSON.stringify(thrown)).not.toContain("new-password");
  });
});

const OLD = "a".repeat(64);
const NEW = "b".repeat(64);
const ROWS = 1_000;

describeOnPostgres(
  "what ENCRYPTION_KEY and JWT_SECRET protect",
  (postgres) => {
    const seal = (text: string, key = OLD) => sealText(text, key, random.hex(12));
    const fill = async (): Promise<PostgresTarget> => {
      const target = await postgres.createDatabase();
      const emails = Array.from({ length: ROWS }, (_, index) => seal(`user-${index}@example.org`));
      await sql(
        target,
        `INSERT INTO webui_users (user_id, encrypted_email) SELECT md5(n::text), sealed FROM unnest($1::text[]) WITH ORDINALITY AS v(sealed, n)`,
        [emails],
      );
      await sql(
        target,
        `INSERT INTO user_wallets (user_id, chain_id, wallet_address_hash, encrypted_wallet_address) VALUES (md5('1'), 1, 'h', $1)`,
        [seal("0xabc")],
      );
      return target;
    };
    const inSession = <Result>(
      target: PostgresTarget,
      work: (database: Pick<PostgresPool, "query">) => Promise<Result>,
    ) => postgresWriter.session(target, work);
    const reencrypt = (target: PostgresTarget) =>
      inSession(target, (database) =>
        reencryptSealed(database, random, { previous: OLD, next: NEW }, () => {}),
      );
    const survey = (target: PostgresTarget, next: string | null = NEW) =>
      inSession(target, (database) => surveySealed(database, { previous: OLD, next }));

    test.each(["before", "after"] as const)(
      "1,000 rows, interrupted %s a batch is written: each row opens with one of the two, and a second run finishes",
      async (moment) => {
        const target = await fill();
        expect(await survey(target, null)).toEqual({ previous: ROWS + 1, next: 0 });
        let updates = 0;
        const interrupted = inSession(target, (database) =>
          reencryptSealed(
            {
              query: async (text, values) => {
                const isSecond = text.startsWith("UPDATE") && (updates += 1) === 2;
                if (isSecond && moment === "before") throw new Error("killed");
                const rows = await database.query(text, values);
                if (isSecond) throw new Error("killed");
                return rows as never;
              },
            },
            random,
            { previous: OLD, next: NEW },
            () => {},
          ),
        );
        await expect(interrupted).rejects.toThrow("killed");
        const half = moment === "before" ? ROWS / 2 : ROWS;
        expect(await survey(target)).toEqual({ previous: ROWS + 1 - half, next: half });
        expect(await reencrypt(target)).toBe(ROWS + 1 - half);
        expect(await survey(target)).toEqual({ previous: 0, next: ROWS + 1 });
        expect(await reencrypt(target)).toBe(0);
        const rows = await sql<{ sealed: string }>(
          target,
          "SELECT encrypted_email AS sealed FROM webui_users ORDER BY id",
        );
        expect(rows.map(({ sealed }) => openText(sealed, NEW))).toEqual(
          rows.map((_, index) => `user-${index}@example.org`),
        );
      },
    );

    test("a row that neither key opens is named, and nothing is changed", async () => {
      const target = await fill();
      await sql(target, "UPDATE webui_users SET encrypted_email = $1 WHERE id = 700", [
        seal("x", "c".repeat(64)),
      ]);
      await expect(survey(target)).rejects.toMatchObject({
        exit: "integrity",
        problems: [{ what: "webui_users 700: encrypted_email" }],
      });
      expect(await sql(target, "SELECT xmin FROM webui_users GROUP BY xmin")).toHaveLength(2);
    });

    test("a scan that finds fewer rows than there were is not taken for the whole", async () => {
      const target = await fill();
      const scan = inSession(target, (database) =>
        surveySealed(
          {
            query: async (text, values) => {
              const rows = await database.query(text, values);
              if (text.startsWith("SELECT count(*)"))
                await sql(target, "DELETE FROM webui_users WHERE id = 800");
              return rows as never;
            },
          },
          { previous: OLD, next: NEW },
        ),
      );
      await expect(scan).rejects.toMatchObject({ exit: "interrupted" });
    });

    test("a row that changes meanwhile keeps its newer value", async () => {
      const target = await fill();
      let changed = false;
      await inSession(target, (database) =>
        reencryptSealed(
          {
            query: async (text, values) => {
              if (text.startsWith("UPDATE webui_users") && !changed) {
                changed = true;
                await sql(target, "UPDATE webui_users SET encrypted_email = $1 WHERE id = 3", [
                  seal("newer@example.org"),
                ]);
              }
              return (await database.query(text, values)) as never;
            },
          },
          random,
          { previous: OLD, next: NEW },
          () => {},
        ),
      );
      expect(await survey(target)).toEqual({ previous: 1, next: ROWS });
      expect(await reencrypt(target)).toBe(1);
    });

    test("in upstream's own tables, what clients encrypted stays as it is", async () => {
      const target = await fill();
      await sql(target, "CREATE TABLE share_manifests (share_id text PRIMARY KEY, encrypted_manifest text)");
      await sql(target, "INSERT INTO share_manifests VALUES ('a', $1), ('b', 'from a client')", [seal("{}")]);
      await reencrypt(target);
      const rows = await sql(target, "SELECT encrypted_manifest AS sealed FROM share_manifests ORDER BY 1");
      const texts = rows.map(({ sealed }) => sealed as string);
      expect(texts).toContain("from a client");
      expect(texts.filter((text) => openText(text, NEW) === "{}")).toHaveLength(1);
    });

    test("keys of the old JWT_SECRET are revoked for both APIs; newer keys and sign-ins stay", async () => {
      const target = await fill();
      const issue = async (jti: string, secret: string): Promise<string> => {
        const token = signClaims({ sub: "1", iat: 1, scope: "storage:read storage:write", jti }, secret);
        const hash = createHash("sha256").update(token).digest("hex");
        await sql(
          target,
          "INSERT INTO api_keys (key_hash, encrypted_key, user_email) VALUES ($1, $2, 'a@b.c')",
          [hash, seal(token)],
        );
        await sql(target, "INSERT INTO sessions (session_token, token_hash) VALUES ($1::text, $1::text)", [
          hash,
        ]);
        return hash;
      };
      const old = await issue("1", "old-secret");
      const renewed = await issue("2", "new-secret");
      await sql(target, "INSERT INTO sessions (session_token, token_hash) VALUES ('web', 'web')");
      const revoke = () =>
        inSession(target, (database) =>
          revokeOtherKeys(database, { jwtSecret: "new-secret", encryptionKey: OLD }),
        );
      expect(await revoke()).toBe(1);
      expect(await revoke()).toBe(0);
      await inSession(target, async (database) => {
        expect(await accountOfKey(database, old)).toBeNull();
        expect(await accountOfKey(database, renewed)).not.toBeNull();
      });
      const open = await sql(
        target,
        "SELECT token_hash AS hash FROM sessions WHERE expires_at IS NULL OR expires_at > now() ORDER BY id",
      );
      expect(open.map(({ hash }) => hash)).toEqual([renewed, "web"]);
      expect(await sql(target, "SELECT 1 FROM api_keys")).toHaveLength(2);
    });
  },
  { template: migrate },
);
