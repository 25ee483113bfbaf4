import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { bootMaster, expectExit, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";

/** What a halting run must leave alone, whoever made it. */
const EVERYTHING = ["/opt", "/etc/cron.d", "/etc/systemd/system", "/root"] as const;

describe.skipIf(skipped !== undefined)(
  "a box with foreign things: the run halts, and changes nothing",
  () => {
    let box: Box;

    beforeAll(async () => {
      box = await Box.boot({ name: "foreign", image: "docker" });
      await installArtifact(box);
    });
    afterAll(() => box?.destroy());
    afterEach(async () => {
      await box.exec(
        "docker rm -f $(docker ps -aq); docker volume rm $(docker volume ls -q); rm -rf /opt/*; pkill -f foreign-listener",
      );
    });

    async function expectHalt(exitCode: number, ...words: readonly string[]): Promise<void> {
      const before = await box.snapshot(EVERYTHING);
      const result = await fulaNode(box, FIRST_JOIN);
      expectExit(result, exitCode);
      for (const word of words) expect(stderrOf(result)).toContain(word);
      expect(stderrOf(result)).toContain("Changed: nothing");
      expect(await box.snapshot(EVERYTHING)).toEqual(before);
    }

    test("a container of another hand named postgres-pinning", async () => {
      await box.run("docker run -d --name postgres-pinning -e POSTGRES_PASSWORD=theirs postgres:16-alpine");
      await expectHalt(23, "postgres-pinning", "did not create");
    });

    test("two foreign things: both are named at once", async () => {
      await box.run("docker run -d --name postgres-pinning -e POSTGRES_PASSWORD=theirs postgres:16-alpine");
      await box.run("docker create --name fula-pinning-webui node:26-trixie-slim");
      await expectHalt(23, "postgres-pinning", "fula-pinning-webui");
    });

    test("a process that listens on a port of ours: it is named", async () => {
      await box.writeFile(
        "/root/foreign-listener.js",
        "require('net').createServer().listen(6000, '127.0.0.1')",
      );
      await box.run("nohup node /root/foreign-listener.js >/dev/null 2>&1 & sleep 0");
      await expect
        .poll(async () => (await box.exec("ss -Hltn sport = :6000")).stdout, { timeout: 10_000 })
        .not.toBe("");
      await expectHalt(22, "6000", "node");
    });

    test("a compose file of another hand", async () => {
      await box.writeFile(
        "/opt/fula-master/docker-compose.yml",
        "services:\n  theirs:\n    image: postgres\n",
      );
      await expectHalt(23, "docker-compose.yml", "not written by fula-node", "--adopt compose-file");
    });

    test("a volume of another Postgres major", async () => {
      await box.run(
        "docker run -d --name theirs -e POSTGRES_PASSWORD=x -v fula-master_pgdata:/var/lib/postgresql/data postgres:17-alpine",
      );
      await expect
        .poll(async () => (await box.exec("docker exec theirs pg_isready -h 127.0.0.1")).exitCode, {
          timeout: 60_000,
        })
        .toBe(0);
      await box.run("docker rm -f theirs");
      await expectHalt(23, "Postgres 17", "POSTGRES_IMAGE");
    });

    test("a .env that can't be understood", async () => {
      await box.writeFile("/opt/fula-master/.env", "POSTGRES_DB=fine\nwhat is this\n", 0o600);
      await expectHalt(21, "Line 2");
    });
  },
);

describe.skipIf(skipped !== undefined)(
  "a master whose secrets are lost or wrong: the run halts, and changes nothing",
  () => {
    let box: Box;

    beforeAll(async () => {
      box = await bootMaster("lost");
    });
    afterAll(() => box?.destroy());

    async function expectHalt(exitCode: number, ...words: readonly string[]): Promise<void> {
      const before = await watch(box);
      const result = await rejoin(box);
      expectExit(result, exitCode);
      for (const word of words) expect(stderrOf(result)).toContain(word);
      expect(await watch(box)).toEqual(before);
    }

    test("a password in .env that does not open the database", async () => {
      await box.run(
        "cp -p /opt/fula-master/.env /root/env && sed -i 's/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=wrong-password/' /opt/fula-master/.env",
      );
      await expectHalt(23, "refused the password", "POSTGRES_PASSWORD");
      expect((await rejoin(box)).stderr).not.toContain("wrong-password");
      await box.run("docker stop postgres-pinning");
      await expectHalt(23, "POSTGRES_PASSWORD");
      await box.run("docker start postgres-pinning && cp -p /root/env /opt/fula-master/.env");
      expectExit(await rejoin(box), 0);
    });

    test("the signing key gone while snapshots stand: no new key is made", async () => {
      await box.run("mv /opt/fula-master/snapshot-ed25519.pem /root/key.pem");
      await expectHalt(23, "snapshot-ed25519.pem", "backup");
      await box.run("mv /root/key.pem /opt/fula-master/snapshot-ed25519.pem");
      expectExit(await rejoin(box), 0);
    });

    test("a secret lost with its container while rows depend on it", async () => {
      await box.run(
        "docker exec postgres-pinning psql -U pinning_user -d pinning_service -c \"INSERT INTO webui_users (email, user_id, encrypted_email) VALUES ('a', 'b', 'c')\"",
      );
      await box.run("docker rm -f fula-pinning-webui && sed -i '/^ENCRYPTION_KEY=/d' /opt/fula-master/.env");
      await expectHalt(23, "ENCRYPTION_KEY", "is missing, but data");
      await box.run("cp -p /root/env /opt/fula-master/.env");
      expectExit(await rejoin(box), 0);
    });

    test(".env lost with all containers, the volume alive: nothing is generated", async () => {
      await box.run("docker rm -f $(docker ps -aq) && rm /opt/fula-master/.env");
      await expectHalt(23, "POSTGRES_PASSWORD", "Postgres volume");
      await box.run("cp -p /root/env /opt/fula-master/.env");
      expectExit(await rejoin(box), 0);
    });
  },
);
