import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { FORMER_DEFAULTS } from "../../src/settings/former-defaults.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import {
  AS_OPERATOR,
  FIRST_JOIN,
  fulaNode,
  installArtifact,
  installRelease010,
  PROGRAM_010,
} from "../support/artifact.ts";
import { Box, type ExecOptions, type ExecResult } from "../support/box.ts";
import { createAccount, Ingest, someBlock } from "../support/ingress-boxes.ts";
import { KILL_HOOK, killedAt } from "../support/kill-boxes.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  plannedChanges,
  psql,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";
import {
  addContent,
  askCluster,
  by,
  type CreatedInvite,
  FORWARD_PORT,
  openStorageApi,
  peerId,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
  stored,
} from "../support/storage-boxes.ts";

const UID = 61_077;
const NVM = "/root/.nvm/versions/node/v99.1.0/bin/node";
const DAYS_AGO = "/root/days-ago.cjs";
const CRON_FILES = "/etc/cron.d/fula-pinset-snapshot /etc/cron.d/fula-replication-sweep";
const PINS = 10;
const SECRETS = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"];

/** The processes and files in which a user with this uid finds a text of a list. */
async function findSecrets(box: Box, uid: number, texts: readonly string[]): Promise<readonly string[]> {
  const script =
    'patterns=$(cat); found() { grep -alFf <(printf \'%s\\n\' "$patterns") "$@" 2>/dev/null; }; ' +
    "found /proc/[0-9]*/environ /proc/[0-9]*/cmdline; found -r /opt/fula-master /opt/fula-writer /etc/cron.d; true";
  const user = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "bash", "-c", script];
  const { stdout } = await box.run(user, { input: texts.join("\n") });
  return stdout.split("\n").filter((line) => line !== "");
}

/** A setting of 0.1.0 that the first join of this version removes from `.env`. */
const isReleased = ([key, value]: readonly [string, string]): boolean =>
  FORMER_DEFAULTS[key]?.includes(value) === true &&
  !MASTER_SETTINGS.some((spec) => spec.key === key && spec.bound === true);

// The story of docs/upgrading.md: one pool of 0.1.0, on a machine with a person (uid 1000) and a Node.js of nvm.
describe.skipIf(skipped !== undefined)("a pool that release 0.1.0 made", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let old: CreatedInvite;
  let env: Readonly<Record<string, string>>;
  let known: unknown;

  const run010 = (box: Box, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> =>
    box.exec([NVM, PROGRAM_010, ...args], options);
  const inThePast = (days: number): ExecOptions => ({
    env: { NODE_OPTIONS: `--require ${DAYS_AGO}`, DAYS_AGO: String(days) },
  });
  const createOldInvite = async (): Promise<CreatedInvite> => {
    const url = `http://master:${FORWARD_PORT}`;
    const result = await run010(master, ["invite", "create", "--json", "--storage-api-url", url]);
    expectExit(result, 0);
    return JSON.parse(result.stdout) as CreatedInvite;
  };
  const know = async (): Promise<unknown> => [
    await peerId(master),
    (await master.run("docker exec ipfs_host ipfs id -f '<id>'")).stdout.trim(),
    [...(await pinset(master))].toSorted(),
    [...(await stored(master))].toSorted(),
  ];
  /** The secrets of `.env`, the writer's private keys and ipfs-cluster's password, if there is one. */
  const secrets = async (): Promise<readonly string[]> => {
    const saved = await readEnv(master);
    const identity = await master.readFile("/opt/fula-writer/ipfs-cluster/identity.json");
    const config = await master.readFile("/opt/fula-writer/kubo/config");
    const { private_key: key } = JSON.parse(identity) as { private_key: string };
    const { Identity } = JSON.parse(config) as { Identity: { PrivKey: string } };
    return [
      ...[...SECRETS, "CLUSTER_BASIC_AUTH"].flatMap((name) => saved[name] ?? []),
      key,
      Identity.PrivKey,
    ];
  };
  const database = async (): Promise<string> =>
    (await master.run("docker inspect --format '{{.Id}} {{.State.StartedAt}}' postgres-pinning")).stdout;
  const listening = async (box: Box, port: number): Promise<string> =>
    (await box.run(`ss -Hltn 'sport = :${port}' | awk '{print $4}' | sort`)).stdout;
  const join = (...args: readonly string[]) => fulaNode(node, ["join-as-storage-node", "--yes", ...args]);

  beforeAll(async () => {
    network = await Box.network();
    const boot = async (name: string): Promise<Box> => {
      const box = await Box.boot({ name, image: "docker", network });
      await Promise.all([installRelease010(box), installArtifact(box)]);
      await box.run(`install -D /usr/bin/node ${NVM}`);
      return box;
    };
    [master, node] = await Promise.all([boot("master"), boot("old")]);
    await master.copyIn(`${import.meta.dirname}/../support/kill-hook.cjs`, KILL_HOOK);
    await master.copyIn(`${import.meta.dirname}/../support/days-ago.cjs`, DAYS_AGO);
    await master.run("id anna 2>/dev/null || useradd --create-home --uid 1000 --shell /bin/bash anna");
    await master.writeFile("/opt/fula-master/.env", "KUBO_PRIVATE_NETWORK=true\n", 0o600);
    expectExit(await run010(master, FIRST_JOIN), 0);
    await openStorageApi(master);
    for (let count = 0; count < PINS; count += 1) await pinContent(master);
    const { token } = await createOldInvite();
    const small = ["--set", "KUBO_STORAGE_MAX=1MB"];
    const first = ["join-as-storage-node", "--yes", "--invite", token, ...PRIVATE_NETWORK, ...small];
    expectExit(await run010(node, first), 0);
    for (const days of [5, 4, 3, 3])
      expectExit(await run010(master, ["snapshot", "take"], inThePast(days)), 0);
    expectExit(await run010(master, ["sweep"]), 0);
    old = await createOldInvite();
    known = await know();
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  describe("the master, before", () => {
    test("a run of 0.1.0 that is under way counts", async () => {
      await master.run("docker stop ipfs_cluster");
      const running = run010(master, ["join-as-master", "--yes"]);
      const isHeld = "grep -q 'fula-node:/opt/fula-master$' /proc/net/unix";
      await expect
        .poll(async () => (await master.exec(isHeld)).exitCode, { timeout: 30_000, interval: 50 })
        .toBe(0);
      const refused = await rejoin(master);
      expectExit(refused, 25);
      expect(stderrOf(refused)).toContain("of an older fula-node");
      expectExit(await running, 0);
    });

    test("a person reads its secrets, and the plan lists each change with its reason", async () => {
      await master.run("sed -i 's/^AUTO_UPDATE=.*/AUTO_UPDATE=true/' /opt/fula-master/.env");
      await master.run("chown -R 1000:1000 /opt/fula-master/cli");
      // A large tree, as blocks make it.
      const many = "mkdir many && cd many && seq 1 6000 | xargs touch && chown -R 1000:100 .";
      await master.run(`cd /opt/fula-writer/kubo/blocks && ${many}`);
      env = await readEnv(master);
      expect((await findSecrets(master, 1000, await secrets())).join("\n")).toMatch(/\/proc\/\d+\/environ/);
      const plan = await rejoin(master, ["--dry-run", "--json"]);
      expectExit(plan, 20);
      const planned = plannedChanges(plan.stdout);
      const steps = new Set(planned.map(({ step }) => step));
      expect([...steps]).toEqual(expect.arrayContaining(["writer", "cli", "service-image", "migrations"]));
      expect([...steps]).not.toContain("postgres");
      const owners = planned.filter(({ change }) => change["kind"] === "close-data");
      expect(owners.map(({ change }) => (change["data"] as { path: string }).path)).toEqual([
        "/opt/fula-writer/kubo",
        "/opt/fula-writer/ipfs-cluster",
      ]);
      const shown = await rejoin(master, ["--dry-run"]);
      const text = shown.stdout.replaceAll(/\s+/g, " ");
      expect(text).toContain(`owner of /opt/fula-writer/kubo 1000 -> ${UID} (restart)`);
      expect(text).toContain("/opt/fula-master/cli belongs to user 1000, not to root");
      const released = Object.entries(env).filter(isReleased);
      expect(released.map(([key]) => key)).toEqual(
        expect.arrayContaining(["KEEP", "KUBO_IMAGE", "NODE_BASE_IMAGE", "WEBUI_PORT"]),
      );
      for (const [key] of released)
        expect(text).toMatch(
          new RegExp(
            `~ setting (?:${key} \\S+ -> \\S+ \\(default released\\)|no longer saved, [^:]+: [\\w, ]*\\b${key}\\b)`,
          ),
        );
      const warnings = stderrOf(shown);
      expect(warnings).toContain("Other users can log in to this machine: anna.");
      expect(warnings).toContain("AUTO_UPDATE");
      expect(await readEnv(master)).toEqual(env);
      const rotated = await fulaNode(master, ["secret", "rotate", "system-key", "--yes"]);
      expectExit(rotated, 22);
    });

    test("a join that is killed in the middle of a tree leaves work that the next one finishes", async () => {
      const unsaid = await rejoin(master);
      expectExit(unsaid, 22);
      expect(stderrOf(unsaid)).toContain("--without-backup");
      const upgrade = ["join-as-master", "--yes", "--without-backup"];
      const killed = await fulaNode(master, upgrade, killedAt("owner|3000"));
      expectExit(killed, 137);
      const owners = await master.run(
        "stat -c %u /opt/fula-writer/kubo; find /opt/fula-writer/kubo -printf '%U\\n' | sort -n | uniq -c | awk '{print $2}'",
      );
      expect(owners.stdout.split("\n")).toEqual(["1000", "1000", String(UID)]);
    });
  });

  describe("the master, after one join", () => {
    test("is one of this version, with its secrets, its identity and its pins", async () => {
      const before = await database();
      expectExit(await rejoin(master), 0);
      expect(await health(master)).toEqual(ALL_HEALTHY);
      const now = await readEnv(master);
      expect(now).toEqual({
        ...Object.fromEntries(Object.entries(env).filter((entry) => !isReleased(entry))),
        FULA_NODE_VERSION: manifest.version,
        MASTER_ID: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
        // New: ipfs-cluster of a writer that fula-node made has a password.
        CLUSTER_BASIC_AUTH: expect.stringMatching(/^fula-node:[\w-]{40}$/) as string,
      });
      // What 0.1.0 recorded by the host's name is this master's own by now.
      expect(await psql(master, "SELECT id, flags FROM masters")).toBe(
        `${now["MASTER_ID"]}|{BILLING_IDEMPOTENCY}`,
      );
      expect(await know()).toEqual(known);
      expect(await database()).toBe(before);
      const again = await rejoin(master);
      expectExit(again, 0);
      expect(again.stdout).toContain("Nothing to do");
      for (const verb of [
        ["join-as-master", "--yes"],
        ["migrate", "up"],
      ])
        expectExit(await run010(master, verb), 30);
    });

    test("gave everything to its own user, and no other person reads a secret or pins", async () => {
      const others = "find /opt/fula-writer/kubo /opt/fula-writer/ipfs-cluster ! -uid";
      expect((await master.run(`${others} ${UID} | wc -l`)).stdout.trim()).toBe("0");
      const running =
        "ps -eo uid,args | grep -E '[i]pfs|[s]erve (pinning-api|webui)' | awk '{print $1}' | sort -u";
      expect((await master.run(running)).stdout.trim()).toBe(String(UID));
      const texts = await secrets();
      expect(texts).toHaveLength(8);
      expect(await findSecrets(master, 1000, texts)).toEqual([]);
      expect((await findSecrets(master, 0, texts)).length).toBeGreaterThan(3);
      const cid = await addContent(master);
      const post = (who: string, auth: string) =>
        master.run(
          `${who} curl -s -o /dev/null -w '%{http_code}' ${auth} -X POST http://127.0.0.1:9094/pins/${cid}`,
        );
      const anna = "setpriv --reuid=1000 --regid=1000 --clear-groups";
      expect((await post(anna, "")).stdout).toBe("401");
      expect((await post(anna, "-u fula-node:wrong")).stdout).toBe("401");
      expect([...(await pinset(master))]).not.toContain(cid);
      expect((await post("", AS_OPERATOR)).stdout).toBe("200");
      expect((await askCluster(master, "DELETE", `/pins/${cid}`)).status).toBe(200);
    });

    test("has its files for root alone, a Node.js for cron that stays, its lock in /run, and both addresses", async () => {
      const { stdout } = await master.run(
        `find /opt/fula-master/cli ! -user root; stat -c '%U %a' /run/fula-node ${CRON_FILES}; tail -qn1 ${CRON_FILES}`,
      );
      const [lock, ...rest] = stdout.split("\n");
      expect(lock).toBe("root 700");
      expect(rest.slice(0, 2)).toEqual(["root 644", "root 644"]);
      for (const line of rest.slice(2)) expect(line).toContain("root /usr/bin/node ");
      expect(await listening(master, 9096)).toBe("0.0.0.0:9096\n[::]:9096");
    });

    test("knows its node, continues the chain of snapshots, and keeps one of each day", async () => {
      const list = await fulaNode(master, ["node", "list", "--json"]);
      expectExit(list, 0);
      const { nodes, strangers } = JSON.parse(list.stdout) as { nodes: unknown[]; strangers: unknown[] };
      expect([nodes.length, strangers.length]).toEqual([2, 0]);
      const takeAndList = async () => {
        expectExit(await fulaNode(master, ["snapshot", "take"]), 0);
        const shown = await fulaNode(master, ["snapshot", "list", "--json"]);
        expectExit(shown, 0);
        const { snapshots } = JSON.parse(shown.stdout) as {
          snapshots: { order: string; restarted: boolean; ageMs: number }[];
        };
        return snapshots;
      };
      const all = await takeAndList();
      expect(all.map(({ order }) => order)).toEqual(["first", ...all.slice(1).map(() => "linked")]);
      expect(all).toHaveLength(6);
      // 0.1.0 would keep one of these. Now the older of two from the same day goes.
      expectExit(await rejoin(master, ["--set", "KEEP=1"]), 0);
      const rest = await takeAndList();
      const days = rest.map(({ ageMs }) => Math.round(ageMs / 86_400_000));
      expect(days.toSorted((a, b) => a - b)).toEqual([0, 3, 4, 5]);
      expect([...all, ...rest].some(({ restarted }) => restarted)).toBe(false);
    });

    test("needs REPL_MIN copies of every pin, also in a pool with fewer nodes", async () => {
      const swept = async () =>
        JSON.parse((await fulaNode(master, ["sweep", "--json"])).stdout) as Record<string, unknown>;
      expect(await swept()).toMatchObject({ pins: PINS, counts: { healthy: PINS } });
      expectExit(await rejoin(master, ["--set", "REPL_MIN=3"]), 0);
      expect(await swept()).toMatchObject({ counts: { healthy: 0 }, lackingNodes: PINS });
    });

    test("alarms at every snapshot about pins that an old one has, until they are given up", async () => {
      const lost = [...(await pinset(master))].slice(0, PINS / 2);
      for (const cid of lost) expect((await askCluster(master, "DELETE", `/pins/${cid}`)).status).toBe(200);
      for (let count = 0; count < 2; count += 1) expectExit(await fulaNode(master, ["snapshot", "take"]), 20);
      expectExit(await fulaNode(master, ["snapshot", "take", "--accept"]), 0);
      expectExit(await fulaNode(master, ["snapshot", "take"]), 0);
    });

    test("rotates a secret, and asks before a migration down", async () => {
      expectExit(await fulaNode(master, ["secret", "rotate", "system-key", "--yes"]), 0);
      expect((await readEnv(master))["SYSTEM_KEY"]).not.toBe(env["SYSTEM_KEY"]);
      expectExit(await fulaNode(master, ["migrate", "down", "23"]), 22);
    });
  });

  describe("its storage node", () => {
    test("may be announced again by its old program", async () => {
      await psql(master, "UPDATE node_descriptors SET addresses = '{}'");
      expectExit(await run010(node, ["join-as-storage-node", "--yes"]), 0);
    });

    test("keeps its name, its pins and its plain http address without an invite", async () => {
      const before = [await peerId(node), await stored(node)];
      expectExit(await join(), 0);
      expectExit(await join("--dry-run"), 0);
      expect([await peerId(node), await stored(node)]).toEqual(before);
      const saved = await node.readFile("/opt/fula-storage/.env");
      expect(saved).toMatch(/^CLUSTER_BASIC_AUTH=fula-node:/m);
      expect(saved).toMatch(/^STORAGE_API_URL=http:\/\/master:/m);
      expect(saved).not.toMatch(/^INGEST_BIND=/m);
      expect(await listening(node, 3601)).toMatch(/^(\*|\[::\]):3601$/);
      const volumes =
        "docker volume inspect -f '{{.Mountpoint}}' fula-storage_kubo-data fula-storage_cluster-data";
      const { stdout } = await node.run(`${volumes} | xargs stat -c '%u %a'`);
      expect(stdout).toBe(`${UID} 700\n${UID} 700`);
    });

    test("gets another name by a new invite only; an invite of 0.1.0 still joins without one", async () => {
      const renamed = ["--set", "CLUSTER_PEERNAME=new"];
      for (const args of [renamed, [...renamed, ...by(old)]]) {
        const refused = await join(...args);
        expectExit(refused, 21);
        expect(stderrOf(refused)).toContain("this node has no invite");
      }
      expectExit(await join("--dry-run", ...renamed, ...by(old), "--allow-http", "--no-register"), 20);
      expectExit(await join("--invite", old.token, "--allow-http"), 22);
      expectExit(await join("--dry-run"), 0);
    });

    test("refuses uploads above KUBO_STORAGE_MAX, and says so", async () => {
      const token = await (await createAccount(master, "a@example.org")).token();
      const ingest = await Ingest.of(node);
      expect((await ingest.put(someBlock(), token)).status).toBe(507);
      const status = await fulaNode(node, ["status"]);
      expectExit(status, 20);
      expect(status.stdout).toMatch(/full/);
      expectExit(await join("--set", "KUBO_STORAGE_MAX=1GB"), 0);
      expect((await ingest.put(someBlock(), token)).status).toBe(200);
    });
  });
});
