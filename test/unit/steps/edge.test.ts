import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { CONTAINER_USER, NAMES } from "../../../src/settings/layout.ts";
import { planLines } from "../../../src/ui/text.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { boxBefore, join, joinedBox, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const HOST = "master.example.org";
const ACME = { set: { PUBLIC_HOST: HOST } };
const OWN = {
  set: { PUBLIC_HOST: HOST, EDGE_TLS: "files", EDGE_CERT: "/etc/own/cert.pem", EDGE_KEY: "/etc/own/key.pem" },
};
const KEY_TEXT = "-----BEGIN PRIVATE KEY-----\nnobody else knows this line\n-----END PRIVATE KEY-----\n";
const [CADDYFILE, KEY, CERT] = ["Caddyfile", "key.pem", "cert.pem"].map(
  (name) => `${LAYOUT.edgeDir}/${name}`,
);
const VOLUME = `/var/lib/docker/volumes/${NAMES.edgeVolume}/_data`;

function putOwn(host: FakeHost): void {
  host.files.put("/etc/own/cert.pem", "a certificate", 0o644);
  host.files.put("/etc/own/key.pem", KEY_TEXT, 0o600);
}

const beforeFiles = await boxBefore("edge-files", ACME);
putOwn(beforeFiles);
const files = await stepOn(beforeFiles, "edge-files", OWN);

stepLaws("edge-files", {
  makeStep: () => files,
  makeHost: () => beforeFiles.copy(),
  absent: () => {},
  drifts: [
    {
      name: "the Caddyfile was edited",
      arrange: (host) =>
        host.files.put(CADDYFILE ?? "", host.files.textOf(CADDYFILE ?? "").replace("404", "200")),
      names: /Caddyfile: differs/,
    },
    {
      name: "others can read the key",
      arrange: (host) => host.files.put(KEY ?? "", KEY_TEXT, 0o644, CONTAINER_USER.uid),
      names: /key\.pem: its mode is 644, not 400/,
    },
    {
      name: "the key is not the container's",
      arrange: (host) => host.files.put(KEY ?? "", KEY_TEXT, 0o400, 0),
      names: /key\.pem: it belongs to uid 0/,
    },
    {
      name: "the operator's certificate was renewed",
      arrange: (host) => host.files.put("/etc/own/cert.pem", "a newer certificate", 0o644),
      names: /cert\.pem: differs/,
    },
    {
      name: "a root that is no longer used",
      arrange: (host) => host.files.put(`${LAYOUT.edgeDir}/acme-root.pem`, "a root"),
      names: /acme-root\.pem: no longer used/,
    },
  ],
  foreign: [
    {
      name: "somebody else's Caddyfile",
      arrange: (host) => host.files.put(CADDYFILE ?? "", ":80 {\n}\n"),
      why: /was not written by fula-node/,
      adoptable: true,
    },
  ],
  refusals: [
    {
      name: "the operator's key is gone",
      arrange: (host) => host.files.drop("/etc/own/key.pem"),
      exit: "settings",
      what: /A file of the edge is missing: \/etc\/own\/key\.pem/,
    },
  ],
  secrets: () => ["nobody else knows this line"],
});

const beforeEdge = await boxBefore("edge", ACME);
const edge = await stepOn(beforeEdge, "edge", ACME);

stepLaws("edge", {
  makeStep: () => edge,
  makeHost: () => beforeEdge.copy(),
  absent: () => {},
  drifts: [
    {
      name: "the container was stopped",
      arrange: (host) => {
        const container = host.docker.boxes.get(NAMES.edge);
        if (container !== undefined)
          host.docker.boxes.set(NAMES.edge, { ...container, status: "exited", pid: 0 });
      },
      names: /fula-edge: its status is exited/,
    },
    {
      name: "others could enter its volume",
      arrange: (host) => host.files.putDirectory(VOLUME, 0o755, CONTAINER_USER.uid),
      names: /mode of .*edge-data.* 755 -> 700/,
    },
  ],
  foreign: [
    {
      name: "somebody else's container has its name",
      arrange: (host) => void host.docker.putContainer(NAMES.edge, { image: "nginx" }),
      why: /did not create the container fula-edge/,
    },
  ],
});

const beforeKnown = await boxBefore("edge-known", ACME);
const known = await stepOn(beforeKnown, "edge-known", ACME);
const told = (changes: Readonly<Record<string, unknown>>) => (host: FakeHost) =>
  host.files.put(
    LAYOUT.edgeKnown,
    JSON.stringify({ host: HOST, url: `https://${HOST}`, ca: null, changed_at: null, ...changes }),
  );

stepLaws("edge-known", {
  makeStep: () => known,
  makeHost: () => beforeKnown.copy(),
  absent: () => {},
  drifts: [
    {
      name: "PUBLIC_HOST was another one",
      arrange: told({ host: "old.example.org", url: "https://old.example.org" }),
      names: /invites contained https:\/\/old\.example\.org, and contain https:\/\/master\.example\.org now/,
    },
    {
      name: "invites have another address, but clients do not",
      arrange: told({ host: "old.example.org" }),
      names: /PUBLIC_HOST was old\.example\.org: clients must use master\.example\.org now/,
    },
  ],
  foreign: [],
});

const INTERNAL = { set: { PUBLIC_HOST: HOST, EDGE_TLS: "internal" } };
const ROOT = `${VOLUME}/caddy/pki/authorities/local/root.crt`;
const rootOf = (text: string) => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;

describe("what invites and nodes know of the edge", () => {
  /** A master whose edge has a CA of its own, whose root Caddy makes when it starts. */
  async function withOwnCa() {
    const host = await boxBefore("edge-known", INTERNAL);
    host.files.put(ROOT, rootOf("MIIone"));
    await join(host, INTERNAL);
    return host;
  }
  const recorded = (host: FakeHost) =>
    JSON.parse(host.files.textOf(LAYOUT.edgeKnown)) as {
      ca: string;
      past: readonly { ca: string; until: string }[];
    };

  it("a new CA is announced with everybody who has the old one, and recorded with its time", async () => {
    const host = await withOwnCa();
    const before = recorded(host);
    expect(before.past).toEqual([]);
    host.files.put(ROOT, rootOf("MIItwo"));
    const { onQuery } = host.postgres;
    host.postgres.onQuery = (target, sql, values) =>
      sql.includes("FROM invites") ? [{ invites: "1", nodes: ["a", "b"] }] : onQuery(target, sql, values);
    const { plan } = await join(host, { ...INTERNAL, dryRun: true });
    expect(plan.find(({ step }) => step === "edge-known")).toMatchObject({
      state: "drifted",
      drift: [
        "its CA is a new one: nobody who has the old root can verify it",
        "1 open invite and the nodes a, b have the old one",
        "fula-node invite revoke ID for each that fula-node invite list marks as old, then create new ones; " +
          "fula-node invite create --name NODE, and on each node: " +
          "fula-node join-as-storage-node --invite @FILE --fingerprint FINGERPRINT --accept-pool-change",
      ],
    });
    await join(host, INTERNAL);
    expect(recorded(host).ca).not.toBe(before.ca);
    expect(recorded(host).past).toMatchObject([{ ca: before.ca, until: expect.any(String) as string }]);
  });

  it("a public CA in the place of the own one is announced, and is no work for nodes, which trust both", async () => {
    const host = await withOwnCa();
    const acme = { set: { ...ACME.set, EDGE_TLS: "acme" } };
    const { plan } = await join(host, { ...acme, dryRun: true });
    expect(plan.find(({ step }) => step === "edge-known")).toMatchObject({
      state: "drifted",
      drift: [
        "its certificate is no longer of the private CA that older invites contain: who trusts that CA alone can't verify it",
      ],
    });
    await join(host, acme);
    expect(recorded(host)).toMatchObject({ ca: null });
  });

  it("a CA that is back is of use to who has it from before: only who was told something else meanwhile is named", async () => {
    const host = await withOwnCa();
    const first = rootOf("MIIone");
    host.files.put(ROOT, rootOf("MIItwo"));
    await join(host, INTERNAL);
    const asked: unknown[][] = [];
    const { onQuery } = host.postgres;
    host.postgres.onQuery = (target, sql, values) => {
      if (!sql.includes("FROM invites")) return onQuery(target, sql, values);
      asked.push([...values]);
      return [{ invites: "0", nodes: [] }];
    };
    host.files.put(ROOT, first);
    await join(host, INTERNAL);
    const [gone, back] = recorded(host).past.map(({ until }) => new Date(until));
    expect(asked.at(-1)).toEqual([expect.any(String), [gone], [back]]);
  });

  it("an edge that is switched off is announced with who uses its address, and one that comes back is no other", async () => {
    const host = await withOwnCa();
    const before = recorded(host);
    const text = host.files.textOf(LAYOUT.envFile);
    host.files.put(LAYOUT.envFile, text.replace(/^(?:PUBLIC_HOST|EDGE_TLS)=.*\n/gm, ""), 0o600);
    const { onQuery } = host.postgres;
    host.postgres.onQuery = (target, sql, values) =>
      sql.includes("FROM invites") ? [{ invites: "0", nodes: ["a"] }] : onQuery(target, sql, values);
    const { plan } = await join(host, { dryRun: true });
    expect(plan.find(({ step }) => step === "edge-known")).toMatchObject({
      state: "drifted",
      drift: [
        `PUBLIC_HOST is not set any more: nobody reaches https://${HOST}`,
        "the node a has the old one",
        expect.stringMatching(/^fula-node invite create --name a, and on that node: /),
      ],
    });
    await join(host);
    expect(recorded(host)).toMatchObject({ ...before, off_at: expect.any(String) as string });
    const again = await join(host);
    expect(again.changes).toEqual([]);
    await join(host, INTERNAL);
    expect(recorded(host)).toEqual(before);
  });

  it("a CA that went with its volume is announced before Caddy makes another", async () => {
    const host = await withOwnCa();
    const step = await stepOn(host, "edge-known", INTERNAL);
    host.files.drop(ROOT);
    // It is in Caddy's memory still: the part edge of status says so.
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    host.docker.volumes.delete(NAMES.edgeVolume);
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "drifted",
      drift: expect.arrayContaining([
        "its CA is lost: Caddy makes a new one, which nobody trusts yet",
      ]) as unknown,
    });
  });

  it("a database that does not answer is no reason to be silent", async () => {
    const host = await withOwnCa();
    host.files.put(ROOT, rootOf("MIItwo"));
    const step = await stepOn(host, "edge-known", INTERNAL);
    host.postgres.onQuery = () => {
      throw new OperatorError({ exit: "unavailable", what: "Postgres does not answer." });
    };
    expect((await lookAt(step, host)).finding).toMatchObject({
      drift: expect.arrayContaining([
        "which invites and nodes have the old one is not known: Postgres does not answer.",
      ]) as unknown,
    });
  });
});

describe("the edge of a master", () => {
  it("is not there without PUBLIC_HOST: no container, no file, no image", async () => {
    const host = await joinedBox();
    expect(host.docker.boxes.has(NAMES.edge)).toBe(false);
    expect(host.files.tree.has(CADDYFILE ?? "")).toBe(false);
    expect([...host.docker.images.keys()].join(" ")).not.toContain("caddy");
  });

  it("goes when PUBLIC_HOST goes, with its files; its volume stays", async () => {
    const host = await joinedBox(ACME);
    expect(host.docker.boxes.get(NAMES.edge)?.status).toBe("running");
    host.files.put(
      LAYOUT.envFile,
      host.files.textOf(LAYOUT.envFile).replace(/^PUBLIC_HOST=.*\n/m, ""),
      0o600,
    );
    const { plan } = await join(host, { dryRun: true });
    expect(planLines(plan).join("\n")).toMatch(/ - remove +fula-edge\n +reason: fula-edge is running, but/);
    expect(planLines(plan).join("\n")).not.toMatch(/create +remove/);
    await join(host);
    expect(host.docker.boxes.has(NAMES.edge)).toBe(false);
    expect(host.files.tree.has(CADDYFILE ?? "")).toBe(false);
    expect(host.docker.volumes.has(NAMES.edgeVolume)).toBe(true);
  });

  it("is created again when its Caddyfile or its certificate changes, and not otherwise", async () => {
    const host = await joinedBox(ACME);
    const first = host.docker.boxes.get(NAMES.edge)?.id;
    await join(host);
    expect(host.docker.boxes.get(NAMES.edge)?.id).toBe(first);
    putOwn(host);
    await join(host, OWN);
    const second = host.docker.boxes.get(NAMES.edge)?.id;
    expect(second).not.toBe(first);
    host.files.put("/etc/own/cert.pem", "a newer certificate");
    await join(host);
    expect(host.docker.boxes.get(NAMES.edge)?.id).not.toBe(second);
    expect(host.files.textOf(CERT ?? "")).toBe("a newer certificate");
  });

  it("halts the run at a chain that nobody can verify, with the commands that make the CA again", async () => {
    const host = await boxBefore("edge", INTERNAL);
    host.files.put(ROOT, rootOf("MIIone"));
    const { onAsk } = host.tls;
    const roots = new Set<string | undefined>();
    host.tls.onAsk = (name, asked) => {
      roots.add(asked.roots);
      const answer = onAsk(name, asked);
      return answer.kind === "answer" ? { ...answer, distrust: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" } : answer;
    };
    const step = await stepOn(host, "edge", INTERNAL);
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    await expect(step.verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringMatching(
        /nobody can verify it\. What to do: put back your copy of the volume .* docker stop fula-edge && rm -rf /,
      ) as string,
    });
    expect([...roots]).toEqual([rootOf("MIIone")]);
  });

  it("halts the run with the CA's reason while there is no certificate", async () => {
    const host = await boxBefore("edge", ACME);
    host.tls.onAsk = () => ({ kind: "no-certificate", why: "tlsv1 alert internal error" });
    const step = await stepOn(host, "edge", ACME);
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    const refused = {
      level: "error",
      logger: "tls.obtain",
      msg: "will retry",
      error: "dial tcp: no route to host",
    };
    host.docker.logTexts.set(NAMES.edge, `${JSON.stringify(refused)}\n`);
    const waitsFor: string[] = [];
    await expect(step.verify(host, (line) => void waitsFor.push(line))).rejects.toMatchObject({
      exit: "unhealthy",
      what: `fula-edge does not work: there is no certificate for ${HOST}: no route to host.`,
    });
    expect(new Set(waitsFor)).toEqual(
      new Set([`not yet: there is no certificate for ${HOST}: no route to host`]),
    );
  });
});
