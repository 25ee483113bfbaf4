import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { FORMER_DEFAULTS } from "../../src/settings/former-defaults.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import {
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
  readEnv,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";
import {
  by,
  type CreatedInvite,
  FORWARD_PORT,
  openStorageApi,
  peerId,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
} from "../support/storage-boxes.ts";

const isBound = (key: string): boolean =>
  MASTER_SETTINGS.some((spec) => spec.key === key && spec.bound === true);

describe.skipIf(skipped !== undefined)("a master that release 0.1.0 made", () => {
  let box: Box;
  let env: Readonly<Record<string, string>>;
  let known: unknown;

  const know = async (): Promise<unknown> => [await peerId(box), [...(await pinset(box))].toSorted()];

  beforeAll(async () => {
    box = await Box.boot({ name: "upgrade", image: "docker" });
    await installRelease010(box);
    await installArtifact(box);
    expectExit(await box.exec(["node", PROGRAM_010, ...FIRST_JOIN]), 0);
    await pinContent(box);
    env = await readEnv(box);
    known = await know();
  });
  afterAll(() => box?.destroy());

  test("the plan says what is made anew, and the database is not", async () => {
    const plan = await rejoin(box, ["--dry-run", "--json"]);
    expectExit(plan, 20);
    const steps = new Set(plannedChanges(plan.stdout).map(({ step }) => step));
    expect([...steps]).toEqual(expect.arrayContaining(["writer", "cli", "service-image"]));
    expect([...steps]).not.toContain("postgres");
  });

  test("one run makes it a master of this version, with its secrets, its identity and its pins", async () => {
    const database = () => box.run("docker inspect --format '{{.Id}} {{.State.StartedAt}}' postgres-pinning");
    const before = (await database()).stdout;
    expectExit(await rejoin(box), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    // The defaults that 0.1.0 saved are released (test/boxes/settings.test.ts).
    const kept = Object.entries(env).filter(
      ([key, value]) => FORMER_DEFAULTS[key]?.includes(value) !== true || isBound(key),
    );
    const identity = expect.stringMatching(/^[0-9a-f]{32}$/) as string;
    const now = await readEnv(box);
    expect(now).toEqual({
      ...Object.fromEntries(kept),
      FULA_NODE_VERSION: manifest.version,
      MASTER_ID: identity,
      // New: ipfs-cluster of a writer that fula-node made has a password.
      CLUSTER_BASIC_AUTH: expect.stringMatching(/^fula-node:[\w-]{40}$/) as string,
    });
    // What 0.1.0 recorded by the host's name is this master's own by now.
    const psql = "docker exec postgres-pinning psql -U pinning_user -d pinning_service -tAc";
    const masters = await box.run(`${psql} "SELECT id, flags FROM masters"`);
    expect(masters.stdout.trim()).toBe(`${now["MASTER_ID"]}|{BILLING_IDEMPOTENCY}`);
    expect(await know()).toEqual(known);
    expect((await database()).stdout).toBe(before);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
  });
});

describe.skipIf(skipped !== undefined)("a storage node that release 0.1.0 made, and its master", () => {
  let network: string;
  let master: Box;
  let node: Box;
  let old: CreatedInvite;

  const createOldInvite = async (): Promise<CreatedInvite> => {
    const url = `http://master:${FORWARD_PORT}`;
    const args = ["invite", "create", "--json", "--storage-api-url", url];
    const { stdout } = await master.run(["node", PROGRAM_010, ...args]);
    return JSON.parse(stdout) as CreatedInvite;
  };

  beforeAll(async () => {
    network = await Box.network();
    const boot = async (name: string): Promise<Box> => {
      const box = await Box.boot({ name, image: "docker", network });
      await installRelease010(box);
      await installArtifact(box);
      return box;
    };
    [master, node] = await Promise.all([boot("master"), boot("old")]);
    await master.writeFile("/opt/fula-master/.env", "KUBO_PRIVATE_NETWORK=true\n", 0o600);
    expectExit(await master.exec(["node", PROGRAM_010, ...FIRST_JOIN]), 0);
    await openStorageApi(master);
    const { token } = await createOldInvite();
    const args = ["join-as-storage-node", "--yes", "--invite", token, ...PRIVATE_NETWORK];
    expectExit(await node.exec(["node", PROGRAM_010, ...args]), 0);
    old = await createOldInvite();
    expectExit(await rejoin(master), 0);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("its old program may announce it again", async () => {
    await master.run(
      `docker exec postgres-pinning psql -U pinning_user -d pinning_service -c "UPDATE node_descriptors SET addresses = '{}'"`,
    );
    expectExit(await node.exec(["node", PROGRAM_010, "join-as-storage-node", "--yes"]), 0);
  });

  test("keeps its name and its plain http address without an invite; another name needs one", async () => {
    const join = (...args: readonly string[]) => fulaNode(node, ["join-as-storage-node", "--yes", ...args]);
    expectExit(await join(), 0);
    expectExit(await join("--dry-run"), 0);
    const renamed = ["--set", "CLUSTER_PEERNAME=new"];
    for (const args of [renamed, [...renamed, ...by(old)]]) {
      const refused = await join(...args);
      expectExit(refused, 21);
      expect(stderrOf(refused)).toContain("this node has no invite");
    }
    expectExit(await join("--dry-run"), 0);
  });
});
