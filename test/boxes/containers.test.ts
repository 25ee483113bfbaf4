import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  AS_OPERATOR,
  FIRST_JOIN,
  fulaNode,
  installArtifact,
  installRelease010,
  PROGRAM_010,
} from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  plannedChanges,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";
import {
  addContent,
  bootFederation,
  bootNode,
  invite,
  join,
  members,
  peerId,
  pinContent,
  pinset,
  stored,
} from "../support/storage-boxes.ts";

const UID = 61_077;
const SECRETS = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"];

/** Counts the processes and files in which a user with this uid finds a text of a list. */
async function findSecrets(box: Box, uid: number, texts: readonly string[]): Promise<readonly string[]> {
  const script =
    'patterns=$(cat); found() { grep -aqFf <(printf \'%s\\n\' "$patterns") "$1" 2>/dev/null && echo "$1"; }; ' +
    "for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do case $file in */$$/*|*/self/*) ;; *) found $file ;; esac; done; " +
    'find /opt/fula-master /opt/fula-writer /etc/cron.d -type f 2>/dev/null | while read -r file; do found "$file"; done; true';
  const user = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "bash", "-c", script];
  const { stdout } = await box.run(user, { input: texts.join("\n") });
  return stdout.split("\n").filter((line) => line !== "");
}

describe.skipIf(skipped !== undefined)("a master that 0.1.0 made, on a machine with a person", () => {
  let box: Box;
  let known: unknown;

  const know = async (): Promise<unknown> => [
    await peerId(box),
    (await box.run("docker exec ipfs_host ipfs id -f '<id>'")).stdout.trim(),
    [...(await pinset(box))].toSorted(),
    [...(await stored(box))].toSorted(),
  ];
  /** The secrets of `.env`, the writer's private keys and ipfs-cluster's password, if there is one. */
  const secrets = async (): Promise<readonly string[]> => {
    const env = await box.readFile("/opt/fula-master/.env");
    const saved = [...SECRETS, "CLUSTER_BASIC_AUTH"].flatMap((key) => {
      const value = new RegExp(`^${key}=(.+)$`, "m").exec(env)?.[1];
      return value === undefined ? [] : [value];
    });
    const identity = await box.readFile("/opt/fula-writer/ipfs-cluster/identity.json");
    const config = await box.readFile("/opt/fula-writer/kubo/config");
    const { private_key: key } = JSON.parse(identity) as { private_key: string };
    const { Identity } = JSON.parse(config) as { Identity: { PrivKey: string } };
    return [...saved, key, Identity.PrivKey];
  };

  beforeAll(async () => {
    box = await Box.boot({ name: "person", image: "docker" });
    await box.run("id anna 2>/dev/null || useradd --create-home --uid 1000 --shell /bin/bash anna");
    await installRelease010(box);
    await installArtifact(box);
    expectExit(await box.exec(["node", PROGRAM_010, ...FIRST_JOIN]), 0);
    await pinContent(box);
    known = await know();
  });
  afterAll(() => box?.destroy());

  test("before, that person reads secrets, and the plan says what gets another owner", async () => {
    expect((await findSecrets(box, 1000, await secrets())).join("\n")).toMatch(/\/proc\/\d+\/environ/);
    const plan = await rejoin(box, ["--dry-run", "--json"]);
    expectExit(plan, 20);
    const owners = plannedChanges(plan.stdout).filter(({ change }) => change["kind"] === "close-data");
    expect(owners.map(({ change }) => (change["data"] as { path: string }).path)).toEqual([
      "/opt/fula-writer/kubo",
      "/opt/fula-writer/ipfs-cluster",
    ]);
    const shown = await rejoin(box, ["--dry-run"]);
    const text = shown.stdout.replaceAll(/\s+/g, " ");
    expect(text).toContain(`owner of /opt/fula-writer/kubo 1000 -> ${UID} (restart)`);
    expect(stderrOf(shown)).toContain("Other users can log in to this machine: anna.");
  });

  test("one run converges: same peers and pins, everything healthy, and then there is nothing to do", async () => {
    expectExit(await rejoin(box), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect(await know()).toEqual(known);
    const again = await rejoin(box);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
    const uids = await box.run(
      "ps -eo uid,args | grep -E '[i]pfs|[s]erve (pinning-api|webui)' | awk '{print $1}' | sort -u",
    );
    expect(uids.stdout.trim()).toBe(String(UID));
  });

  test("now that person reads no secret, and ipfs-cluster takes no orders", async () => {
    const texts = await secrets();
    expect(texts).toHaveLength(8);
    expect(await findSecrets(box, 1000, texts)).toEqual([]);
    expect((await findSecrets(box, 0, texts)).length).toBeGreaterThan(3);
    const cid = await addContent(box);
    const post = (by: string, auth: string) =>
      box.run(
        `${by} curl -s -o /dev/null -w '%{http_code}' ${auth} -X POST http://127.0.0.1:9094/pins/${cid}`,
      );
    const anna = "setpriv --reuid=1000 --regid=1000 --clear-groups";
    expect((await post(anna, "")).stdout).toBe("401");
    expect((await post(anna, "-u fula-node:wrong")).stdout).toBe("401");
    expect([...(await pinset(box))]).not.toContain(cid);
    expect((await post("", AS_OPERATOR)).stdout).toBe("200");
  });

  test("half of a tree has the old owner, after a kill: the next run gives it all to the containers", async () => {
    const before = await know();
    await box.run(
      "docker stop ipfs_host && chown -R 1000:100 /opt/fula-writer/kubo/blocks && chown 1000:100 /opt/fula-writer/kubo",
    );
    expectExit(await rejoin(box), 0);
    const others = await box.run(
      `find /opt/fula-writer/kubo /opt/fula-writer/ipfs-cluster ! -uid ${UID} | wc -l`,
    );
    expect(others.stdout.trim()).toBe("0");
    expect(await know()).toEqual(before);
  });
});

describe.skipIf(skipped !== undefined)("the first storage node of an empty pool", () => {
  let network: string;
  let master: Box;
  let node: Box;

  const joinAndMeasure = async (): Promise<string> => {
    const { token, fingerprint } = await invite(master, "one");
    await node.writeFile("/root/token", token);
    const args = [
      "--invite",
      "@/root/token",
      "--fingerprint",
      fingerprint,
      "--set",
      "KUBO_PRIVATE_NETWORK=true",
    ];
    const result = await join(node, args);
    expectExit(result, 0);
    return result.stdout;
  };
  const leave = async (): Promise<void> =>
    expectExit(await fulaNode(node, ["leave", "--yes", "--purge", "all", "--confirm", "one"]), 0);

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("does not wait for an update that cannot come, and says each wait once", async () => {
    const out = await joinAndMeasure();
    expect(out).toContain("No pins known here, and none on the master");
    expect(out).not.toContain("waiting for the first update");
    const waits = out.split("\n").filter((line) => /^waiting|: waiting/.test(line));
    expect(new Set(waits.map((line) => line.replace(/ \(up to .*/, ""))).size).toBe(waits.length);
    if (process.env["SHOW_TIMES"] !== undefined) {
      console.log(out);
      for (let run = 0; run < 2; run += 1) {
        await leave();
        console.log(await joinAndMeasure());
      }
    }
  });

  test("joins over IPv6 alone, with an invite that has no other address", async () => {
    await leave();
    const give = async (box: Box, address: string): Promise<void> => {
      await box.run(
        `sysctl -w net.ipv6.conf.eth0.disable_ipv6=0 && ip -6 addr add ${address}/64 dev eth0 nodad`,
      );
      await box.run(
        "ip -4 addr flush dev eth0 && printf 'fd00:fed::1 master\\nfd00:fed::2 one\\n' >>/etc/hosts",
      );
    };
    await give(master, "fd00:fed::1");
    await give(node, "fd00:fed::2");
    await master.run("sed -i '/^[0-9].*\\smaster$/d' /etc/hosts || true");
    await master.run("docker restart ipfs_host ipfs_cluster");
    expectExit(await rejoin(master), 0);
    await joinAndMeasure();
    const env = await node.readFile("/opt/fula-storage/.env");
    expect(env).toMatch(/^MASTER_CLUSTER_BOOTSTRAP=\/ip6\/fd00:fed::1\/tcp\/9096\/p2p\/\w+$/m);
    expect(await members(master)).toEqual(["master", "one"]);
    const cid = await pinContent(master);
    await expect
      .poll(async () => (await stored(node)).has(cid), { timeout: 120_000, interval: 500 })
      .toBe(true);
    const { stdout } = await node.run(
      "curl -s -o /dev/null -w '%{http_code}' 'http://[fd00:fed::2]:3601/health'",
    );
    expect(stdout).toBe("200");
  });
});
