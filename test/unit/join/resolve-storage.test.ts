import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { formatRegistration, type Invite } from "../../../src/federation/invite.ts";
import type { StorageFlags } from "../../../src/join/join-run.ts";
import { resolveStorageNode } from "../../../src/join/resolve-storage.ts";
import { parseVerifyingKey } from "../../../src/machine/signing.ts";
import type { Settings } from "../../../src/settings/settings.ts";
import type { World } from "../../../src/world.ts";
import { makeSigningKey, registrationOf, tokenOf as signInvite } from "../../support/invites.ts";
import {
  FakeStorage,
  GIVEN,
  LAYOUT,
  MASTER_ID,
  OWN,
  storageBoxBefore,
  worldOf,
} from "../../support/storage-fake.ts";

const FLAGS: StorageFlags = {
  dryRun: false,
  yes: true,
  set: [],
  adopt: [],
  ignore: ["clock"],
  acceptPoolChange: false,
  allowHttp: false,
  register: true,
};
const KEY = makeSigningKey();
const BOOTSTRAP = `/ip4/198.51.100.7/tcp/9096/p2p/${MASTER_ID}`;
const POOL = "https://pools.example/pools/pool";
const NEEDED = ["CLUSTERNAME=pool", "STORAGE_API_URL=https://master.example"];

const INVITE: Omit<Invite, "publicPem"> = {
  clusterName: "pool",
  clusterSecret: "a".repeat(64),
  trustedPeers: [MASTER_ID],
  bootstrap: [BOOTSTRAP],
  storageApiUrl: "https://master.example",
  storageApiCa: null,
  nodeName: "berlin-1",
  issuedAt: new Date(Date.UTC(2026, 0, 1)),
  expiresAt: new Date(Date.UTC(2026, 0, 2)),
  registration: registrationOf(KEY),
};
const tokenOf = (parts: Partial<Invite> = {}) => signInvite(KEY, { ...INVITE, ...parts });

const PARSER = { loadKeyParser: async () => parseVerifyingKey };

function settle(
  host: FakeStorage,
  flags: Partial<StorageFlags>,
  parts: Partial<World> = {},
): Promise<Settings> {
  const world = worldOf(host, { ...PARSER, ...parts });
  const compared = flags.invite === undefined ? {} : { fingerprint: KEY.id };
  return resolveStorageNode({ ...FLAGS, ...compared, ...flags }, LAYOUT, world);
}

async function refusal(wishes: Promise<unknown>): Promise<OperatorError> {
  return (await wishes.then(
    () => expect.fail("nothing was refused"),
    (error: unknown) => error,
  )) as OperatorError;
}

const save = (host: FakeStorage, values: Readonly<Record<string, string>>) =>
  host.files.put(
    LAYOUT.envFile,
    Object.entries(values)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(""),
    0o600,
  );
const answerPool = (host: FakeStorage, body: unknown, status = 200) =>
  void host.http.routes.set(POOL, { status, body });
const POOL_ANSWER = { "ipfs-cluster-trustedpeers": [MASTER_ID], ipfs_cluster: { addresses: [BOOTSTRAP] } };

describe("a key that compose passes on from .env, and that programs read differently", () => {
  it("is refused by name before the first write, together with all other problems", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, CLUSTER_ANNOUNCEMULTIADDRESS: "ab#cd", OF_NOBODY: "ab#cd" });
    const error = await refusal(settle(host, { set: ["INGEST_PORT=080"] }));
    expect([error.exit, error.changed]).toEqual(["settings", undefined]);
    expect(error.problems.map(({ subject }) => subject)).toEqual([
      "INGEST_PORT",
      "CLUSTER_ANNOUNCEMULTIADDRESS",
    ]);
    expect(JSON.stringify(error.problems)).not.toContain("ab#cd");
    expect(host.writes).toEqual([]);
  });

  it("is fine in single quotes", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, CLUSTER_ANNOUNCEMULTIADDRESS: "'ab#cd'" });
    expect((await settle(host, {})).get("CLUSTERNAME")?.value).toBe("pool");
  });
});

describe("an invite", () => {
  it("gives everything that a node needs", async () => {
    const host = new FakeStorage();
    const settings = await settle(host, { invite: tokenOf() });
    const values = Object.fromEntries([...settings].map(([key, { value }]) => [key, value]));
    expect(values).toMatchObject({
      CLUSTERNAME: "pool",
      CLUSTER_SECRET: "a".repeat(64),
      CLUSTER_PEERNAME: "berlin-1",
      MASTER_CLUSTER_PEERIDS: MASTER_ID,
      MASTER_CLUSTER_BOOTSTRAP: BOOTSTRAP,
      STORAGE_API_URL: "https://master.example",
      INGEST_QUOTA_MODE: "strict",
      NODE_INVITE: formatRegistration(registrationOf(KEY, "pool", INVITE.registration?.id)),
    });
    expect(host.printed.join("\n")).toContain(`key fingerprint  ${KEY.id}`);
    expect(host.writes).toEqual([]);
  });

  it("is named as the source of what it gives, and not of what the operator gives", async () => {
    const given = await settle(new FakeStorage(), { invite: tokenOf(), set: ["CLUSTER_PEERNAME=mine"] });
    expect(
      ["STORAGE_API_URL", "CLUSTER_PEERNAME", "INGEST_PORT"].map((key) => given.get(key)?.offeredBy),
    ).toEqual(["--invite", undefined, undefined]);
  });

  it("does not override the name that the node chose", async () => {
    const given = await settle(new FakeStorage(), { invite: tokenOf(), set: ["CLUSTER_PEERNAME=mine"] });
    expect(given.get("CLUSTER_PEERNAME")?.value).toBe("mine");
    const none = await settle(new FakeStorage(), { invite: tokenOf({ nodeName: null }) });
    expect(none.get("CLUSTER_PEERNAME")?.value).toBe("box-example");
  });

  it("with private addresses only says at once which setting kubo needs for them, unless it has it", async () => {
    const [near, far] = [`/ip4/10.1.2.3/tcp/9096/p2p/${MASTER_ID}`, BOOTSTRAP];
    const said = async (bootstrap: readonly string[], set: readonly string[] = []) => {
      const host = new FakeStorage();
      await settle(host, { invite: tokenOf({ bootstrap }), set });
      return /private addresses only \(10\.1\.2\.3\).*--set KUBO_PRIVATE_NETWORK=true/.test(
        host.printed.join("\n"),
      );
    };
    expect(await said([near])).toBe(true);
    expect(await said([near, far])).toBe(false);
    expect(await said([near], ["KUBO_PRIVATE_NETWORK=true"])).toBe(false);
    expect(await said([near], ["KUBO_PRIVATE_NETWORK=false"])).toBe(false);
  });

  const payload = tokenOf().split(".")[2] ?? "";
  it("with a private CA saves it; another CA for the same pool is a change of trust", async () => {
    const host = new FakeStorage();
    const ca = `MI${"A".repeat(200)}==`;
    const settings = await settle(host, { invite: tokenOf({ storageApiCa: ca }) });
    expect(settings.get("STORAGE_API_CA")?.value).toBe(ca);
    save(host, { ...GIVEN, STORAGE_API_CA: `MI${"B".repeat(200)}` });
    const error = await refusal(settle(host, { invite: tokenOf({ storageApiCa: ca }) }));
    expect(error.exit).toBe("drift");
    expect(error.problems.map(({ what }) => what)).toContain(
      "The invite has a different STORAGE_API_CA than .env.",
    );
  });

  it.each([
    ["garbage", "hello", "integrity"],
    ["nothing", "", "integrity"],
    ["cut short", tokenOf().slice(0, -20), "integrity"],
    ["a giant", `fula-invite.2.${"A".repeat(200_000)}.AAAA`, "integrity"],
    ["without a signature", `fula-invite.2.${payload}`, "integrity"],
    ["of a version to come", tokenOf().replace("fula-invite.2", "fula-invite.4"), "newer"],
    ["expired", tokenOf({ expiresAt: new Date(Date.UTC(2025, 0, 1)) }), "integrity"],
    ["with everybody as a master", tokenOf({ trustedPeers: ["*"] }), "integrity"],
    ["with nobody as a master", tokenOf({ trustedPeers: [] }), "integrity"],
    ["without a peer in its address", tokenOf({ bootstrap: ["/ip4/198.51.100.7/tcp/9096"] }), "integrity"],
  ])("%s is refused", async (_name, invite, exit) => {
    const host = new FakeStorage();
    expect((await refusal(settle(host, { invite }))).exit).toBe(exit);
    expect(host.writes).toEqual([]);
  });

  it("signed by another key than the given fingerprint is refused", async () => {
    const error = await refusal(settle(new FakeStorage(), { invite: tokenOf(), fingerprint: "0123" }));
    expect(error.exit).toBe("integrity");
    expect(error.what).toContain(KEY.id);
    await settle(new FakeStorage(), { invite: tokenOf(), fingerprint: KEY.id });
  });

  it("asks the operator to compare the fingerprint, with --yes too, and stops if the answer is no", async () => {
    const asked: string[] = [];
    const run = (yes: boolean, flags: Partial<StorageFlags> = {}) => {
      const questions = {
        confirm: (question: string) => Promise.resolve(asked.push(question) > 0 && yes),
        text: () => Promise.resolve(""),
      };
      const all = { ...FLAGS, invite: tokenOf(), ...flags };
      return resolveStorageNode(all, LAYOUT, worldOf(new FakeStorage(), { ...PARSER, questions }));
    };
    expect((await refusal(run(false, { yes: false }))).exit).toBe("integrity");
    expect((await refusal(run(false, { yes: true }))).exit).toBe("integrity");
    await run(true, { yes: false });
    expect(asked).toHaveLength(3);
    await run(false, { fingerprint: KEY.id.toUpperCase() });
    await run(false, { dryRun: true });
    expect(asked).toHaveLength(3);
  });

  it("is refused if there is nobody to compare the fingerprint; a dry run trusts nobody", async () => {
    const host = new FakeStorage();
    const run = (flags: Partial<StorageFlags>) =>
      resolveStorageNode({ ...FLAGS, invite: tokenOf(), ...flags }, LAYOUT, worldOf(host, PARSER));
    for (const yes of [true, false]) {
      const error = await refusal(run({ yes }));
      expect(error.exit).toBe("preflight");
      expect(error.remedy).toContain("--fingerprint");
    }
    await run({ dryRun: true });
    expect(host.writes).toEqual([]);
  });

  it("with an invalid node name is refused, and the error says which flag helps", async () => {
    const error = await refusal(settle(new FakeStorage(), { invite: tokenOf({ nodeName: "Bérlin.1" }) }));
    expect(error.exit).toBe("settings");
    expect(error.problems.map(({ subject }) => subject)).toEqual(["CLUSTER_PEERNAME"]);
  });

  it("and a flag that contradicts it are refused", async () => {
    const error = await refusal(settle(new FakeStorage(), { invite: tokenOf(), set: ["CLUSTERNAME=other"] }));
    expect(error.problems).toMatchObject([{ subject: "CLUSTERNAME" }]);
  });

  it("that differs from the saved settings halts until it is accepted: every difference is listed, and no secret is shown", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, CLUSTER_SECRET: "b".repeat(64) });
    const error = await refusal(settle(host, { invite: tokenOf() }));
    expect(error.exit).toBe("drift");
    expect(error.problems.map(({ subject }) => subject)).toEqual(["CLUSTER_SECRET"]);
    expect(JSON.stringify([error, error.what])).not.toMatch(/a{64}|b{64}/);
    const settings = await settle(host, { invite: tokenOf(), acceptPoolChange: true });
    expect(settings.get("MASTER_CLUSTER_BOOTSTRAP")?.value).toBe(BOOTSTRAP);
  });
});

describe("another invite of the same pool", () => {
  it("may give its masters' new addresses, but no other masters and no other storage API", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, CLUSTER_SECRET: "a".repeat(64) });
    const settings = await settle(host, { invite: tokenOf() });
    expect(settings.get("MASTER_CLUSTER_BOOTSTRAP")?.value).toBe(BOOTSTRAP);
    const bootstrap = [`/ip4/198.51.100.7/tcp/9096/p2p/${OWN.peerId}`];
    const strange = { bootstrap, trustedPeers: [OWN.peerId], storageApiUrl: "https://other.example" };
    const error = await refusal(settle(host, { invite: tokenOf(strange) }));
    expect(error.problems.map(({ subject }) => subject)).toEqual([
      "MASTER_CLUSTER_PEERIDS",
      "MASTER_CLUSTER_BOOTSTRAP",
      "STORAGE_API_URL",
    ]);
  });
});

describe("what a master would refuse at the end of a join is refused before anything is written", () => {
  const joined = (): FakeStorage => {
    const host = new FakeStorage();
    host.pool = "pool";
    host.registration = "invite";
    save(host, { ...GIVEN, NODE_INVITE: formatRegistration(registrationOf(KEY)) });
    return host;
  };

  it("a name that the invite is not for, with the whole claim and nothing else sent to the master", async () => {
    const host = joined();
    host.refusal = { code: "invite-other-name", error: "The invite is for the name node, not for opa." };
    const error = await refusal(settle(host, { set: ["CLUSTER_PEERNAME=opa"], dryRun: true }));
    expect(error.exit).toBe("settings");
    expect(error.what).toContain("The invite is for the name node, not for opa.");
    expect(host.claims).toEqual([
      ["opa?pool=pool", expect.stringMatching(/^Fula-Invite [0-9a-f]{32}\./) as string],
    ]);
    expect(host.writes).toEqual([]);
  });

  it("a master of another pool", async () => {
    const host = joined();
    host.pool = "my-pool";
    const error = await refusal(settle(host, {}));
    expect([error.exit, error.what]).toEqual([
      "settings",
      "The master refused the name node: This master manages the names of pool my-pool.",
    ]);
    expect(host.writes).toEqual([]);
  });

  it("but not that its own saved invite was used, while its own key can't be read", async () => {
    const host = joined();
    host.refusal = { code: "invite-used", error: "The invite was used by another node (12D3KooWx)." };
    await settle(host, {});
    const other = formatRegistration(registrationOf(KEY));
    const error = await refusal(settle(host, { set: [`NODE_INVITE=${other}`] }));
    expect(error.what).toContain("was used by another node");
  });

  it("an older master judges no claim, and one that does not answer stops nothing", async () => {
    const host = joined();
    host.pool = undefined;
    host.refusal = { code: "invite-other-name", error: "No." };
    await settle(host, { set: ["CLUSTER_PEERNAME=opa"] });
    host.names = null;
    await settle(host, { set: ["CLUSTER_PEERNAME=opa"] });
  });

  it.each(["CLUSTERNAME=other", `CLUSTER_SECRET=${"c".repeat(64)}`])(
    "another pool given by --set %s, unless it is accepted by name",
    async (given) => {
      const host = new FakeStorage();
      save(host, { ...GIVEN, CLUSTER_SECRET: "a".repeat(64) });
      const error = await refusal(settle(host, { set: [given], register: false }));
      expect([error.exit, error.problems.map(({ subject }) => subject)]).toEqual([
        "drift",
        [given.split("=")[0]],
      ]);
      expect(JSON.stringify([error, error.what])).not.toMatch(/a{64}|c{64}/);
      expect(error.remedy).toMatch(/leave.*--accept-pool-change/);
      expect(host.writes).toEqual([]);
      await settle(host, { set: [given], acceptPoolChange: true });
    },
  );
});

describe("the address that the ingest listens on", () => {
  it.each(["nonsense", "9.9.9.9", "2001:db8::8", "node.example"])(
    "%s is refused before anything is written",
    async (bind) => {
      const host = new FakeStorage();
      save(host, GIVEN);
      const error = await refusal(settle(host, { set: [`INGEST_BIND=${bind}`] }));
      expect([error.exit, error.problems.map(({ subject }) => subject)]).toEqual([
        "settings",
        ["INGEST_BIND"],
      ]);
      expect(host.writes).toEqual([]);
    },
  );

  it.each(["::", "0.0.0.0", "127.0.0.1", "127.0.0.9", "::1", "localhost", "192.0.2.7", "2001:DB8:0:0::7"])(
    "%s is one of this machine",
    async (bind) => {
      const host = new FakeStorage();
      save(host, GIVEN);
      expect((await settle(host, { set: [`INGEST_BIND=${bind}`] })).get("INGEST_BIND")?.value).toBe(bind);
    },
  );
});

describe("without an invite", () => {
  it("everything that is missing or wrong is listed at once", async () => {
    const host = new FakeStorage();
    const set = ["INGEST_QUOTA_MODE=closed", "KUBO_STORAGE_MAX=900TB", "MASTER_CLUSTER_PEERIDS=*"];
    const error = await refusal(settle(host, { set }));
    expect(error.exit).toBe("settings");
    expect(error.problems.map(({ subject }) => subject).toSorted()).toEqual([
      "CLUSTERNAME",
      "INGEST_QUOTA_MODE",
      "KUBO_STORAGE_MAX",
      "MASTER_CLUSTER_BOOTSTRAP",
      "MASTER_CLUSTER_PEERIDS",
      "STORAGE_API_URL",
    ]);
    expect(host.writes).toEqual([]);
  });

  it("flags are enough, and no pool is asked", async () => {
    const set = Object.entries(GIVEN).map(([key, value]) => `${key}=${value}`);
    const settings = await settle(new FakeStorage(), { set });
    expect(settings.has("POOL_API")).toBe(false);
  });

  it("the public pool API is asked by the pool's name", async () => {
    const host = new FakeStorage();
    host.http.routes.set("https://pools.fx.land/pools/pool", { status: 200, body: POOL_ANSWER });
    const settings = await settle(host, { set: NEEDED });
    expect(settings.get("MASTER_CLUSTER_PEERIDS")?.value).toBe(MASTER_ID);
    expect(settings.get("POOL_API")?.value).toBe("https://pools.fx.land/pools/pool");
    expect(host.printed.join("\n")).toContain(`lists one master to trust: ${MASTER_ID}`);
  });

  it.each([
    ["HTML", "<html>"],
    ["null", null],
    ["a list", []],
    ["wrong types", { "ipfs-cluster-trustedpeers": "x", ipfs_cluster: 7 }],
    ["everybody as a master", { ...POOL_ANSWER, "ipfs-cluster-trustedpeers": ["*"] }],
    ["an address without a peer", { ...POOL_ANSWER, ipfs_cluster: { addresses: ["/ip4/1.2.3.4/tcp/9096"] } }],
  ])("a pool API that answers %s is refused", async (_name, body) => {
    const host = new FakeStorage();
    answerPool(host, body);
    const error = await refusal(settle(host, { set: [...NEEDED, `POOL_API=${POOL}`] }));
    expect(error.exit).toBe("unavailable");
    expect(host.writes).toEqual([]);
  });

  it("plain http is refused, unless it is allowed by name", async () => {
    const host = new FakeStorage();
    const url = "http://pools.example/pool";
    host.http.routes.set(url, { status: 200, body: POOL_ANSWER });
    const set = [...NEEDED, `POOL_API=${url}`];
    expect((await refusal(settle(host, { set }))).exit).toBe("settings");
    await settle(host, { set, allowHttp: true });
  });

  it("a pool that changes its answer later is drift that halts, until it is accepted", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, POOL_API: POOL });
    answerPool(host, { ...POOL_ANSWER, "ipfs-cluster-trustedpeers": [MASTER_ID, OWN.peerId] });
    const error = await refusal(settle(host, {}));
    expect(error.exit).toBe("drift");
    expect(error.remedy).toContain("--accept-pool-change");
    const settings = await settle(host, { acceptPoolChange: true });
    expect(settings.get("MASTER_CLUSTER_PEERIDS")?.value).toBe(`${MASTER_ID},${OWN.peerId}`);
  });

  it("a pool that does not answer later is a warning", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, POOL_API: POOL });
    const settings = await settle(host, {});
    expect(settings.get("MASTER_CLUSTER_PEERIDS")?.value).toBe(MASTER_ID);
    expect(host.printed.join("\n")).toContain("The masters in .env stay in use.");
  });
});

describe("a storage API over plain http to another host", () => {
  const http = { storageApiUrl: "http://master.example:3001" };
  const set = [...NEEDED.slice(0, 1), "STORAGE_API_URL=http://master.example", `POOL_API=${POOL}`];

  it.each([
    ["in an invite", { invite: tokenOf(http) }, "The invite has STORAGE_API_URL http://master.example:3001"],
    ["given by --set", { set }, "STORAGE_API_URL is http://master.example"],
  ])("%s is refused, unless it is allowed by name", async (_name, flags, what) => {
    const host = new FakeStorage();
    answerPool(host, POOL_ANSWER);
    const error = await refusal(settle(host, flags));
    expect(error.exit).toBe("settings");
    expect(error.problems[0]?.subject).toBe("STORAGE_API_URL");
    expect(error.problems[0]?.what).toContain(what);
    expect(error.problems[0]?.remedy).toContain("--allow-http");
    await settle(host, { ...flags, allowHttp: true });
  });

  it("given by the environment is refused", async () => {
    const environment = { ...GIVEN, STORAGE_API_URL: "http://master.example" };
    expect((await refusal(settle(new FakeStorage(), {}, { environment }))).exit).toBe("settings");
  });

  it.each(["http://127.0.0.1:3001", "http://localhost:3001", "http://[::1]:3001"])(
    "%s is this host",
    async (url) => {
      await settle(new FakeStorage(), { invite: tokenOf({ storageApiUrl: url }) });
    },
  );

  it("that was accepted before stays in use", async () => {
    const host = new FakeStorage();
    save(host, { ...GIVEN, STORAGE_API_URL: "http://master.example" });
    await settle(host, {});
    expect((await refusal(settle(host, { set: ["STORAGE_API_URL=http://other.example"] }))).exit).toBe(
      "settings",
    );
  });
});

describe("a master that registers invited nodes only", () => {
  const given = Object.entries(GIVEN).map(([key, value]) => `${key}=${value}`);
  const inviting = () => {
    const host = new FakeStorage();
    host.registration = "invite";
    return host;
  };

  it("ends a join without an invite before anything is written, and the error says the ways out", async () => {
    const host = inviting();
    const error = await refusal(settle(host, { set: given }));
    expect(error.exit).toBe("settings");
    expect(error.what).toBe(
      "The master does not register the name node: it registers invited nodes only, and this node has no invite.",
    );
    expect(error.remedy).toContain("--invite");
    expect(error.remedy).toContain("--no-register");
    expect((await refusal(settle(host, { invite: tokenOf({ registration: null }) }))).exit).toBe("settings");
    expect(host.writes).toEqual([]);
  });

  it("a refusal stands alone: no warning of what the node would lack comes before it", async () => {
    const host = inviting();
    host.pool = "pool";
    host.refusal = { code: "invite-used", error: "The invite was used by another node (12D3KooWx)." };
    const token = tokenOf({ bootstrap: [`/ip4/10.1.2.3/tcp/9096/p2p/${MASTER_ID}`] });
    expect((await refusal(settle(host, { invite: token }))).what).toContain("was used by another node");
    expect(host.printed.join("\n")).not.toContain("private addresses only");
  });

  it("without a name, an address of the storage API that leads nowhere is said, and one that works is not", async () => {
    const host = inviting();
    const said = () => host.printed.filter((line) => line.includes("STORAGE_API_URL: "));
    await settle(host, { set: given, register: false });
    host.masterPins = null;
    await settle(host, { set: given, register: false });
    expect(said()).toEqual([]);
    const elsewhere = "https://nowhere.example";
    const set = given.map((one) =>
      one.startsWith("STORAGE_API_URL=") ? `STORAGE_API_URL=${elsewhere}` : one,
    );
    await settle(host, { set, register: false });
    expect(said()).toEqual([
      expect.stringContaining(`${elsewhere} does not answer as the storage API of a master: `),
    ]);
  });

  it("lets a node go on that has an invite, that needs no name, or that has its name already", async () => {
    await settle(inviting(), { invite: tokenOf() });
    await settle(inviting(), { set: given, register: false });
    const host = inviting();
    host.names?.set("node", { peerId: OWN.peerId, addresses: [] });
    await settle(host, { set: given });
    host.names = null;
    await settle(host, { set: given });
  });
});

describe("without root", () => {
  const shut = (host: FakeStorage) => {
    host.system.facts.uid = 1000;
    const refuse = () =>
      Promise.reject(new OperatorError({ exit: "unavailable", what: "This user may not open docker.sock." }));
    Object.assign(host.docker, { version: refuse, container: refuse, containers: refuse, volume: refuse });
    return host;
  };

  it.each([
    ["with an invite", { invite: tokenOf() }, []],
    ["with nothing", {}, ["CLUSTERNAME", "STORAGE_API_URL"]],
    ["with what the pool is asked for", { set: [...NEEDED, `POOL_API=${POOL}`] }, []],
    ["with a setting that is wrong", { invite: tokenOf(), set: ["INGEST_PORT=x"] }, ["INGEST_PORT"]],
  ])("%s every problem is listed, and nothing is asked", async (_name, flags, subjects) => {
    const host = shut(new FakeStorage());
    const error = await refusal(settle(host, flags));
    expect(error.exit).toBe("preflight");
    const named = error.problems.map(({ subject }) => subject);
    expect(named).toEqual(expect.arrayContaining(["root", "engine", ...subjects]));
    expect(host.writes).toEqual([]);
  });
});

describe("a box that is something else", () => {
  it("a master halts the join, and the error says so", async () => {
    const host = new FakeStorage();
    host.files.put("/opt/fula-master/.env", "");
    host.docker.putContainer("fula-pinning-webui");
    const error = await refusal(settle(host, { invite: tokenOf() }));
    expect(error.exit).toBe("foreign");
    expect(error.why).toContain("fula-pinning-webui");
    expect(error.why).toContain("/opt/fula-master/.env");
  });

  it("a storage node that lost its .env needs no flag again", async () => {
    const host = await storageBoxBefore(null);
    host.files.drop(LAYOUT.envFile);
    await settle(host, {});
  });
});
