import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { expect, onTestFinished, test } from "vitest";
import { createPostgres } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { startPostgresProxy } from "../support/postgres-proxy.ts";

/** Debian's package puts it there; a directory that is not in PATH of everybody. */
const PGBOUNCER = process.env["PGBOUNCER_BIN"] ?? "/usr/sbin/pgbouncer";
const isInstalled = (await execa(PGBOUNCER, ["--version"], { reject: false })).exitCode === 0;
if (!isInstalled) console.warn(`skipped: tests with the real pgbouncer: no ${PGBOUNCER}`);

describeOnPostgres("a pooler in front of PostgreSQL", (postgres) => {
  const reader = createPostgres({ connectTimeoutMs: 3_000 });

  async function expectRefusal(target: PostgresTarget, says: RegExp): Promise<void> {
    expect(await reader.ask(target)).toEqual({ kind: "pooler", says: expect.stringMatching(says) });
    for (const use of [() => migratorOf().up(target, listen()), () => migratorOf().status(target)])
      await expect(use()).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringContaining(`A connection pooler answers at 127.0.0.1:${target.port}`),
        remedy: expect.stringContaining("direct port"),
      });
  }

  test("that swallows the start-up options", async () => {
    const { port } = await startPostgresProxy(postgres.target.port, { swallowOptions: true });
    await expectRefusal({ ...postgres.target, port }, /settings of the session did not arrive/);
  });

  test("a proxy that passes everything on is none", async () => {
    const { port } = await startPostgresProxy(postgres.target.port);
    expect(await reader.ask({ ...postgres.target, port })).toMatchObject({ kind: "open" });
  });

  test.skipIf(!isInstalled).each([
    ["as installed", [], /unsupported startup parameter/],
    ["told to ignore the options", ["ignore_startup_parameters = options"], /did not arrive/],
  ])("the real pgbouncer, %s", async (_, lines, says) => {
    const port = await startPgbouncer(postgres.target, lines);
    const target = { ...postgres.target, port };
    await expect
      .poll(async () => (await reader.ask(target)).kind, { timeout: 10_000 })
      .not.toBe("unreachable");
    await expectRefusal(target, says);
  });
});

async function startPgbouncer(target: PostgresTarget, lines: readonly string[]): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-pgbouncer-"));
  await chmod(directory, 0o777);
  const port = 20_000 + (process.pid % 20_000);
  const settings = [
    "[databases]",
    `* = host=127.0.0.1 port=${target.port}`,
    "[pgbouncer]",
    `listen_port = ${port}`,
    "listen_addr = 127.0.0.1",
    "unix_socket_dir =",
    "auth_type = scram-sha-256",
    `auth_file = ${directory}/users`,
    "pool_mode = transaction",
    ...lines,
  ];
  await writeFile(join(directory, "users"), `"${target.user}" "${target.password}"\n`);
  await writeFile(join(directory, "pgbouncer.ini"), `${settings.join("\n")}\n`);
  const user = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
  const running = execa(PGBOUNCER, [...user, join(directory, "pgbouncer.ini")], { reject: false, all: true });
  onTestFinished(async () => {
    running.kill("SIGKILL");
    await once(running, "exit").catch(() => {});
    await rm(directory, { recursive: true });
  });
  return port;
}
