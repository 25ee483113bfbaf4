import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, PROGRAM, SERVICE_IMAGE } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import { bootMaster, expectExit, rejoin, skipped, stderrOf } from "../support/master-box.ts";

const BASE = "/opt/fula-master";
const CRON_FILE = "/etc/cron.d/fula-pinset-snapshot";

/** Binds the names that were the locks up to 0.2.0, and answers with endless drips of bytes. */
const SOCKETS = `
const net = require("net");
for (const part of ["", "/snapshot", "/sweep", "/restore"])
  net.createServer((socket) => {
    socket.on("error", () => {});
    setInterval(() => socket.write(" "), 100);
  }).listen("\\0fula-node:${BASE}" + part, () => console.log("listens"));
`;

describe.skipIf(skipped !== undefined)("a master among other users, containers and daemons", () => {
  let box: Box;
  beforeAll(async () => {
    box = await bootMaster("locks");
    await box.writeFile("/srv/sockets.js", SOCKETS);
  });
  afterAll(() => box?.destroy());

  const outOf = async (args: readonly string[] = []): Promise<string> => {
    const result = await rejoin(box, args);
    expectExit(result, args.includes("--dry-run") ? 20 : 0);
    return result.stdout.replaceAll(/\s+/g, " ");
  };
  const waitUntil = async (command: string): Promise<void> =>
    expect.poll(async () => (await box.exec(command)).exitCode, { timeout: 30_000, interval: 200 }).toBe(0);

  describe("the lock", () => {
    const expectFree = async (): Promise<void> => {
      expectExit(await rejoin(box), 0);
      expectExit(await fulaNode(box, ["snapshot", "take"]), 0);
      expectExit(await fulaNode(box, ["sweep"]), 0);
    };

    test("is neither held nor delayed by another user", async () => {
      await box.run(
        "nohup setpriv --reuid=65534 --regid=65534 --clear-groups node /srv/sockets.js >/dev/null 2>&1 & sleep 0",
      );
      await waitUntil(`grep -q "fula-node:${BASE}/restore" /proc/net/unix`);
      await expectFree();
      await box.exec(["pkill", "-f", "/srv/sockets.js"]);
    });

    test("is neither held nor delayed by a container on the host's network", async () => {
      await box.run(
        `docker run -d --rm --name sockets --network host --user 0 -v /srv/sockets.js:/sockets.js --entrypoint node ${SERVICE_IMAGE} /sockets.js`,
      );
      await waitUntil(`grep -q "fula-node:${BASE}/restore" /proc/net/unix`);
      await expectFree();
      await box.run("docker rm -f sockets");
    });

    test("can't be opened, held or replaced by another user", async () => {
      expect((await box.run("stat -c '%U %a' /run/fula-node")).stdout).toBe("root 700");
      const tries = [
        "ls /run/fula-node",
        "touch /run/fula-node/x",
        "mv /run/fula-node /run/x",
        "flock -n /run/fula-node true",
      ];
      for (const one of tries)
        expect(
          (await box.exec(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", one]))
            .exitCode,
          one,
        ).not.toBe(0);
    });

    test("still counts if a run of an older version of root's has it", async () => {
      await box.run("nohup node /srv/sockets.js >/dev/null 2>&1 & sleep 0");
      await waitUntil(`grep -q "fula-node:${BASE}/restore" /proc/net/unix`);
      const refused = await rejoin(box);
      expectExit(refused, 25);
      expect(stderrOf(refused)).toContain("of an older fula-node");
      await box.exec(["pkill", "-f", "/srv/sockets.js"]);
    });

    test("of a run that was killed is free at once, although a container that it started still runs", async () => {
      await box.run("docker stop ipfs_cluster");
      const run = rejoin(box);
      await waitUntil("docker ps --format '{{.Names}}' | grep -qx ipfs_cluster");
      await box.exec("pkill -9 -f 'fula-node.js join-as-master'");
      await run;
      expectExit(await rejoin(box), 0);
    });
  });

  describe("owners", () => {
    test("of what fula-node made are repaired, with the reason in the plan", async () => {
      await box.run(
        `chown -R 1000:1000 ${BASE}/cli && chmod 777 ${BASE} && chmod 664 ${BASE}/docker-compose.yml && chown 1000 ${CRON_FILE}`,
      );
      const plan = await outOf(["--dry-run"]);
      expect(plan).toContain(`every user can write to ${BASE} (mode 777)`);
      expect(plan).toContain(`${BASE}/cli belongs to user 1000, not to root`);
      expect(plan).toContain(`${CRON_FILE} belongs to user 1000, so cron ignores it`);
      await outOf();
      const { stdout } = await box.run(
        `find ${BASE}/cli ! -user root; stat -c '%U %a' ${BASE} ${BASE}/docker-compose.yml ${CRON_FILE}`,
      );
      expect(stdout).toBe("root 755\nroot 644\nroot 644");
      expectExit(await rejoin(box, ["--dry-run"]), 0);
    });

    test("a .env of somebody else's is trusted by no verb", async () => {
      await box.run(`chown 1000 ${BASE}/.env`);
      for (const args of [["status"], ["snapshot", "take"], ["sweep"], ["join-as-master", "--yes"]]) {
        const result = await fulaNode(box, args);
        expectExit(result, 22);
        expect(stderrOf(result)).toContain(`chown root:root ${BASE}/.env`);
      }
      await box.run(`chown root ${BASE}/.env`);
      expectExit(await rejoin(box), 0);
    });

    test("a directory above that others can write to is refused, with the command", async () => {
      await box.run("chmod 777 /opt");
      const refused = await rejoin(box);
      expectExit(refused, 22);
      expect(stderrOf(refused)).toContain("Run chmod go-w /opt");
      await box.run("chmod go-w /opt");
      expectExit(await rejoin(box), 0);
    });
  });

  describe("the Node.js for cron", () => {
    const NVM = "/root/.nvm/versions/node/v99.1.0/bin/node";
    const HOME = "/home/me/node";
    const joinWith = (node: string) => box.exec(`${node} ${PROGRAM} join-as-master --yes`);
    const lineOf = async (): Promise<string> => (await box.run(["tail", "-1", CRON_FILE])).stdout;

    test("is the one that an upgrade leaves there, not one of nvm's that runs the join", async () => {
      await box.run(
        `install -D /usr/bin/node ${NVM} && install -D /usr/bin/node ${HOME} && chown -R 1000 /home/me`,
      );
      expectExit(await joinWith(NVM), 0);
      expect(await lineOf()).toContain("root /usr/bin/node ");
    });

    test("is nvm's with a warning if there is no other, until there is one again", async () => {
      await box.run("mv /usr/bin/node /usr/bin/node.away");
      try {
        const joined = await joinWith(NVM);
        expectExit(joined, 0);
        expect(stderrOf(joined)).toContain(`Cron will use ${NVM}, which goes away with the next upgrade`);
        expect(await lineOf()).toContain(`root ${NVM} `);
      } finally {
        await box.run("mv /usr/bin/node.away /usr/bin/node");
      }
      expectExit(await joinWith(NVM), 0);
      expect(await lineOf()).toContain("root /usr/bin/node ");
    });

    test("is never one that another user can replace", async () => {
      const line = await lineOf();
      await box.run("mv /usr/bin/node /usr/bin/node.away");
      try {
        const refused = await joinWith(HOME);
        expectExit(refused, 22);
        expect(stderrOf(refused)).toContain(`Root's cron can't use ${HOME}: /home/me belongs to user 1000`);
      } finally {
        await box.run("mv /usr/bin/node.away /usr/bin/node");
      }
      expect(await lineOf()).toBe(line);
    });
  });

  describe("the cron daemon", () => {
    test("that is disabled is enabled again", async () => {
      await box.run("systemctl disable cron");
      expect(await outOf(["--dry-run"])).toContain("cron does not start at boot");
      await outOf();
      expect((await box.run("systemctl is-enabled cron")).stdout).toBe("enabled");
    });

    test.each([
      ["in a container", ""],
      ["in a container that shares the host's processes", "--pid host"],
    ])("a process named cron %s does not count", async (_where, flag) => {
      await box.run("systemctl stop cron");
      await box.run(
        `docker run -d --rm --name crond ${flag} --user 0 --entrypoint sh ${SERVICE_IMAGE} -c 'cp /bin/sleep /tmp/cron && exec /tmp/cron 3600'`,
      );
      await waitUntil("pgrep -x cron");
      expect(await outOf(["--dry-run"])).toContain("cron is not running");
      await outOf();
      expect((await box.run("systemctl is-active cron")).stdout).toBe("active");
      await box.run("docker rm -f crond");
    });

    test("systemd-cron counts, and is not removed for cron", async () => {
      await box.run(
        "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends systemd-cron",
      );
      expectExit(await rejoin(box, ["--dry-run"]), 0);
      await box.run("systemctl disable --now cron.target");
      expect(await outOf(["--dry-run"])).toContain("systemd-cron is not running");
      await outOf();
      const { stdout } = await box.run(
        "systemctl is-active cron.target; dpkg-query -W -f '${Status}' systemd-cron",
      );
      expect(stdout).toBe("active\ninstall ok installed");
      expect((await box.run("systemctl list-timers --all")).stdout).toContain("cron-fula-pinset-snapshot");
    });
  });
});
