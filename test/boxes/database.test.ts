import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Box } from "../support/box.ts";
import { createAuthority } from "../support/certificates.ts";
import {
  ALL_HEALTHY,
  bootMaster,
  expectExit,
  health,
  journaledChanges,
  psql,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";

const DATA = "/var/lib/docker/volumes/fula-master_pgdata/_data";

describe.skipIf(skipped !== undefined)("the database of a master", () => {
  let box: Box;

  beforeAll(async () => {
    box = await bootMaster("database");
  });
  afterAll(() => box?.destroy());

  test("knows the master by its identity, and its storage API says that it is alive", async () => {
    const { MASTER_ID, CLUSTERNAME } = await readEnv(box);
    expect(MASTER_ID).toMatch(/^[0-9a-f]{32}$/);
    expect(await psql(box, "SELECT pool, id, name, flags FROM masters")).toBe(
      `${CLUSTERNAME}|${MASTER_ID}|database|{BILLING_IDEMPOTENCY}`,
    );
    await psql(box, "UPDATE masters SET heartbeat_at = now() - interval '1 day'");
    await box.run("docker restart fula-pinning-webui");
    await expect
      .poll(() => psql(box, "SELECT now() - heartbeat_at < interval '1 minute' FROM masters"), {
        timeout: 60_000,
      })
      .toBe("t");
    expectExit(await rejoin(box), 0);
  });

  test("is reached over TLS by every service, with a CA of its own", async () => {
    const authority = await createAuthority();
    const { certificate, key } = await authority.issue("IP:127.0.0.1");
    await authority.close();
    await box.writeFile("/opt/database-ca.pem", authority.certificate);
    await box.writeFile(`${DATA}/server.crt`, certificate, 0o600);
    await box.writeFile(`${DATA}/server.key`, key, 0o600);
    await box.run(`chown --reference=${DATA}/PG_VERSION ${DATA}/server.crt ${DATA}/server.key`);
    await psql(box, "ALTER SYSTEM SET ssl = on");
    await psql(box, "SELECT pg_reload_conf()");
    await box.run(`sed -i 's/^host all all all/hostssl all all all/' ${DATA}/pg_hba.conf`);
    await psql(box, "SELECT pg_reload_conf()");

    const refused = await rejoin(box);
    expect(refused.exitCode).not.toBe(0);
    expect(stderrOf(refused)).toMatch(/--set POSTGRES_SSL=verify-full/);

    const tls = ["POSTGRES_SSL=verify-full", "POSTGRES_SSL_CA=/opt/database-ca.pem"];
    expectExit(
      await rejoin(
        box,
        tls.flatMap((one) => ["--set", one]),
      ),
      0,
    );
    expect(await health(box)).toMatchObject(ALL_HEALTHY);
    expect(
      await psql(
        box,
        "SELECT DISTINCT application_name, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'fula-node %' ORDER BY 1",
      ),
    ).toBe("fula-node pinning-api|t\nfula-node webui|t");
    expectExit(await rejoin(box), 0);

    await box.run(`sed -i 's/^hostssl all all all/host all all all/' ${DATA}/pg_hba.conf`);
    await psql(box, "SELECT pg_reload_conf()");
    expectExit(await rejoin(box, ["--set", "POSTGRES_SSL=disable", "--set", "POSTGRES_SSL_CA="]), 21);
    await box.run("sed -i '/^POSTGRES_SSL_CA=/d' /opt/fula-master/.env");
    expectExit(await rejoin(box, ["--set", "POSTGRES_SSL=disable"]), 0);
  });

  test("that lost a table is not called fine", async () => {
    await psql(box, "ALTER TABLE bucket_roots RENAME TO hidden");
    const result = await rejoin(box);
    expectExit(result, 28);
    expect(stderrOf(result)).toContain("table bucket_roots");
    expect((await box.exec("node /opt/fula-master/cli/current/bin/fula-node.js status")).exitCode).not.toBe(
      0,
    );
    await psql(box, "ALTER TABLE hidden RENAME TO bucket_roots");
    expectExit(await rejoin(box), 0);
  });

  test("whose first start was cut short is made anew, and only then", async () => {
    await box.run("docker rm -f postgres-pinning fula-pinning-api fula-pinning-webui");
    // As a power cut in initdb leaves it: the templates are there, the pool's database is not.
    await box.run(`cd ${DATA} && rm -rf base/16* pg_wal/* && rm -f server.crt server.key postmaster.opts`);
    await box.run(`find ${DATA}/base -type f -name '[1-9]*' | awk -F/ '$NF+0 >= 16384' | xargs -r rm -f`);
    expectExit(await rejoin(box), 0);
    expect((await journaledChanges(box)).map(({ change }) => change["kind"])).toContain("remove-volume");
    expect(await health(box)).toMatchObject(ALL_HEALTHY);
  });
});
