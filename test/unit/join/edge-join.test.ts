import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { nodeList } from "../../../src/commands/pool/node.ts";
import type { JoinFlags } from "../../../src/join/join-run.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { Reporter } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const FLAGS: JoinFlags = {
  dryRun: false,
  yes: true,
  set: [],
  adopt: [],
  replace: [],
  ignore: ["clock"],
  provisionWriter: true,
};
const HOST = "PUBLIC_HOST=m.example.org";
const ROOT = `/var/lib/docker/volumes/${NAMES.edgeVolume}/_data/caddy/pki/authorities/local/root.crt`;

/** Runs join-as-master on a box, and returns what was printed, with spaces for line breaks. */
async function joinOn(
  host: FakeStorage,
  set: readonly string[],
  flags: Partial<JoinFlags> = {},
): Promise<string> {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const plain = createLines({ out: write, err: write }, () => host.clock.monotonicMs());
  // Lines for logs show progress after half a minute of real time.
  const reporter: Reporter = {
    ...plain,
    listen: (event) =>
      event.type === "progress" ? write(`${event.step}: ${event.line}`) : plain.listen(event),
  };
  const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
  await joinAsMaster(
    { ...FLAGS, ...flags, set: ["CLUSTERNAME=pool", ...set] },
    worldOf(host, { pid: 7, hostname: "box", takeLock, reporter }),
  );
  return lines.join(" ").replaceAll(/\s+/g, " ");
}

function box(): FakeStorage {
  const host = new FakeStorage();
  // Caddy makes its CA when it starts.
  host.files.put(ROOT, "-----BEGIN CERTIFICATE-----\nMIIone\n-----END CERTIFICATE-----\n");
  return host;
}

/** A box with a certificate of the operator. */
function boxWithCertificate(): FakeStorage {
  const host = box();
  host.files.put("/own/cert.pem", "a certificate", 0o644);
  host.files.put("/own/key.pem", "a key", 0o600);
  host.tls.onInspect = () => ({
    issuer: "Own",
    isSelfSigned: false,
    validFrom: new Date(0),
    validTo: new Date(Date.UTC(2030, 0, 1)),
    coversName: true,
    isOfKey: true,
    isOfIssuer: null,
  });
  return host;
}

describe("the end of a join with an edge", () => {
  it("says nothing of an edge that others can use, and names its volume among what to keep a copy of", async () => {
    const text = await joinOn(box(), [HOST]);
    expect(text).not.toContain("The edge of this master:");
    expect(text).toContain("No backup has, keep a copy: the volume fula-master_edge-data ");
    expect(await joinOn(new FakeStorage(), [])).not.toContain("edge-data");
  });

  it("says how a copy gets off the machine, or where backups go", async () => {
    expect(await joinOn(new FakeStorage(), [])).toContain(
      "Keep a copy off this box: fula-node backup create --to DIR --recipient age1...",
    );
    const recipient = "BACKUP_RECIPIENT=age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const text = await joinOn(new FakeStorage(), ["BACKUP_DIR=/mnt/backup", recipient]);
    expect(text).toContain("Backed up every night to: /mnt/backup");
    const adopted = "No backup has, keep a copy: ipfs-cluster/identity.json and kubo/config of the writer ";
    expect(text).toContain(adopted);
    const ours = new FakeStorage();
    await joinOn(ours, []);
    ours.files.put("/opt/fula-writer/ipfs-cluster/identity.json", "{}");
    expect(await joinOn(ours, [])).not.toContain(adopted);
    const file = new FakeStorage();
    file.files.put("/root/notes.txt", "mine");
    file.files.put("/proc/version", "Linux");
    file.files.putLink("/proc", "/mnt/link");
    for (const [unfit, why] of [
      ["/root/notes.txt", "is a file"],
      ["/opt/fula-master/state", "is in /opt/fula-master"],
      ["/opt/fula-writer/backups", "would remove its backups"],
      ["/proc/backups", "belongs to the system"],
      ["/mnt/link/x", "which leads to /proc/x, belongs to the system"],
    ])
      await expect(joinOn(file, [`BACKUP_DIR=${unfit}`, recipient])).rejects.toMatchObject({
        exit: "settings",
        problems: [{ what: expect.stringContaining(why ?? "") as string }],
      });
    for (const alone of ["BACKUP_DIR=/mnt/backup", recipient])
      await expect(joinOn(new FakeStorage(), [alone])).rejects.toMatchObject({
        exit: "settings",
        problems: [{ what: expect.stringContaining("no backup would be made") as string }],
      });
  });

  it("says that a staging CA is one, and that nobody reaches localhost", async () => {
    const staging = "EDGE_ACME_CA=https://acme-staging-v02.api.letsencrypt.org/directory";
    expect(await joinOn(box(), [HOST, staging])).toMatch(
      /The edge of this master: its certificate is of a staging CA \(Test CA\): browsers do not trust it\. What to do: /,
    );
    expect(await joinOn(box(), ["PUBLIC_HOST=localhost", "EDGE_TLS=internal"])).toContain(
      "The edge of this master: nobody outside this machine can reach localhost.",
    );
    const host = box();
    host.system.onDns = () => false;
    expect(await joinOn(host, [HOST])).toContain(
      "The edge of this master: the DNS has no address for m.example.org: others can't find it.",
    );
    host.files.put("/etc/hosts", "127.0.0.1 localhost\n192.0.2.7 m.example.org # this box\n");
    expect(await joinOn(host, [])).not.toContain("The edge of this master:");
  });

  it("shows what it waits for while there is no certificate", async () => {
    const host = box();
    const { onAsk } = host.tls;
    let asked = 0;
    host.tls.onAsk = (name, options) =>
      (asked += 1) > 30 ? onAsk(name, options) : { kind: "no-certificate", why: "alert 80" };
    expect(await joinOn(host, [HOST])).toContain(
      "not yet: there is no certificate for m.example.org: alert 80",
    );
  });
});

it("the end of a join says that nobody trusts the operator's certificate, and not that everything works", async () => {
  const host = boxWithCertificate();
  const own = [HOST, "EDGE_TLS=files", "EDGE_CERT=/own/cert.pem", "EDGE_KEY=/own/key.pem"];
  const trusted = await joinOn(host, own);
  expect(trusted).toContain("everything works.");
  expect(trusted).not.toContain("Left to do:");
  const { onAsk } = host.tls;
  host.tls.onAsk = (name, options) => {
    const answer = onAsk(name, options);
    return answer.kind === "answer" ? { ...answer, distrust: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" } : answer;
  };
  const text = await joinOn(host, []);
  expect(text).toContain("storage nodes and browsers do not trust its certificate (of ");
  expect(text).toContain("Left to do: what the warning above says of the edge.");
  expect(text).not.toContain("everything works");
});

it("settings of another EDGE_TLS stay, and one line says that nothing uses them", async () => {
  const host = boxWithCertificate();
  await joinOn(host, [HOST, "EDGE_TLS=files", "EDGE_CERT=/own/cert.pem", "EDGE_KEY=/own/key.pem"]);
  expect(await joinOn(host, ["EDGE_TLS=internal"])).toContain(
    "EDGE_CERT and EDGE_KEY stay in .env, but are not used: EDGE_TLS is internal.",
  );
  expect(host.files.textOf(LAYOUT.envFile)).toMatch(/^EDGE_CERT=/m);
  expect(host.files.tree.has(`${LAYOUT.edgeDir}/key.pem`)).toBe(false);
});

it("an image of a Caddy that is too old is refused by name, and nothing is changed", async () => {
  const host = box();
  await joinOn(host, [HOST]);
  host.revive();
  const before = host.snapshot();
  await expect(joinOn(host, ["EDGE_IMAGE=caddy:2.10.2-alpine"])).rejects.toMatchObject({
    exit: "settings",
    what: expect.stringMatching(
      /EDGE_IMAGE is caddy:2\.10\.2-alpine, which has Caddy 2\.10\.2-alpine: too old/,
    ) as string,
  });
  expect(host.snapshot()).toEqual(before);
});

it("the end of each join says how many have the old address, until nobody has", async () => {
  const host = box();
  await joinOn(host, [HOST]);
  const { onQuery } = host.postgres;
  host.postgres.onQuery = (target, sql, values) =>
    sql.includes("FROM invites") ? [{ invites: "1", nodes: ["berlin-1"] }] : onQuery(target, sql, values);
  for (const set of [["PUBLIC_HOST=other.example.org"], []]) {
    const text = await joinOn(host, set);
    expect(text).toContain(
      "Left to do: 1 open invite and 1 node have the old address or CA (fula-node status).",
    );
    expect(text).not.toContain("everything works");
  }
  host.postgres.onQuery = onQuery;
  expect(await joinOn(host, [])).toContain("everything works.");
});

/** Runs node list, and returns its warnings of the edge. */
async function warningsOfList(host: FakeStorage): Promise<readonly string[]> {
  const warnings: string[] = [];
  const world = worldOf(host, { pid: 7 });
  const reporter: Reporter = {
    ...world.reporter,
    listen: (event) => void (event.type === "warning" && warnings.push(event.text)),
  };
  const openCluster: World["openCluster"] = (target) =>
    Object.assign(world.openCluster(target), { metrics: () => Promise.resolve([]) });
  await nodeList({}, { ...world, reporter, openCluster });
  return warnings.filter((text) => text.includes("edge"));
}

it("node list says that the CA that nodes and invites have is lost, before a join records it", async () => {
  const host = box();
  await joinOn(host, [HOST, "EDGE_TLS=internal"]);
  host.postgres.onQuery = () => [];
  expect(await warningsOfList(host)).toEqual([]);
  host.files.put(ROOT, "-----BEGIN CERTIFICATE-----\nMIItwo\n-----END CERTIFICATE-----\n");
  expect(await warningsOfList(host)).toEqual([
    "The edge of this master: its CA is a new one: nobody who has the old root can verify it. What to do: to see who has the old one: fula-node join-as-master.",
  ]);
});

it("node list names who has the address from before a change", async () => {
  const host = box();
  await joinOn(host, [HOST]);
  host.postgres.onQuery = (_target, sql) =>
    sql.includes("FROM invites") ? [{ invites: "0", nodes: ["berlin-1"] }] : [];
  expect(await warningsOfList(host)).toEqual([]);
  const known = JSON.parse(host.files.textOf(LAYOUT.edgeKnown)) as object;
  host.files.put(
    LAYOUT.edgeKnown,
    JSON.stringify({
      ...known,
      past: [{ ...known, ca: "x", url: "https://old.example.org", until: "2026-01-01T00:00:00.000Z" }],
    }),
  );
  expect(await warningsOfList(host)).toEqual([
    expect.stringContaining(
      "changed on 2026-01-01: the node berlin-1 has the old one. What to do: fula-node invite create --name berlin-1",
    ),
  ]);
});

it("node list on a master that was removed from its pool says so, and ends with 23", async () => {
  const host = box();
  await joinOn(host, []);
  const gone = { name: "box", removedAt: "2026-01-01T00:00:00Z", removedBy: "paris" };
  host.postgres.onQuery = (_target, sql) => (/FROM public\.removed_masters/.test(sql) ? [gone] : []);
  await expect(warningsOfList(host)).rejects.toMatchObject({
    exit: "foreign",
    what: "The master box was removed from its pool by paris, 2026-01-01T00:00:00Z.",
  });
});
