import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import type { Certificate } from "../support/certificates.ts";
import { eventually } from "../support/cluster-real.ts";
import { ACME_SETTINGS, AcmeCa, PUBLIC_HOST } from "../support/edge-boxes.ts";
import { expectExit, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";
import { fencesOf, readPages } from "../support/pages.ts";

const ENV_FILE = "/opt/fula-master/.env";
const VOLUME = "fula-master_edge-data";
const DATA = `/var/lib/docker/volumes/${VOLUME}/_data`;
const [CERT, KEY] = ["/root/tls/cert.pem", "/root/tls/key.pem"];
const NEWER = "caddy:2.99.0-alpine";

interface Part {
  readonly name: string;
  readonly state: string;
  readonly summary: string;
  readonly todo: string | null;
}

describe.skipIf(skipped !== undefined)("the certificates of a master's edge", () => {
  let master: Box;
  let ca: AcmeCa;

  const account = async () =>
    (await master.run(`set -o pipefail; cat ${DATA}/caddy/acme/*/users/*/*.json | sha256sum`)).stdout;
  const edgeOf = async (format: string) =>
    (await master.run(["docker", "inspect", "--format", format, "fula-edge"])).stdout;
  const join = () => fulaNode(master, [...FIRST_JOIN, ...ACME_SETTINGS]);
  /** The certificate that a client gets. */
  const served = async () => {
    const ask = "openssl s_client -connect 127.0.0.1:443 -servername master </dev/null 2>/dev/null";
    const { stdout } = await master.run(`set -o pipefail; ${ask} | openssl x509`);
    return new X509Certificate(stdout).fingerprint256;
  };
  const put = async ({ certificate, key }: Certificate) => {
    await master.writeFile(CERT, certificate);
    await master.writeFile(KEY, key, 0o600);
  };
  const fingerprintOf = ({ certificate }: Certificate) => new X509Certificate(certificate).fingerprint256;
  const edgePart = async () => {
    const { stdout } = await fulaNode(master, ["status", "--json"]);
    const { parts } = JSON.parse(stdout) as { parts: Part[] };
    return parts.find(({ name }) => name === "edge");
  };

  beforeAll(async () => {
    master = await Box.boot({ name: PUBLIC_HOST, image: "docker" });
    await installArtifact(master);
    ca = await AcmeCa.on(master);
    expectExit(await join(), 0);
    expect(await ca.orders()).toBe(1);
  });

  afterAll(async () => {
    await ca?.authority.close();
    await master?.destroy();
  });

  test("H22: a newer image of the edge keeps certificate and account: nothing is ordered", async () => {
    const before = { account: await account(), certificate: await served(), id: await edgeOf("{{.Id}}") };
    await master.run(`docker tag "$(docker inspect --format '{{.Config.Image}}' fula-edge)" ${NEWER}`);
    expectExit(await rejoin(master, ["--set", `EDGE_IMAGE=${NEWER}`]), 0);
    expect(await edgeOf("{{.Config.Image}}")).toBe(NEWER);
    expect(await edgeOf("{{.Id}}")).not.toBe(before.id);
    expect(await account()).toBe(before.account);
    expect(await served()).toBe(before.certificate);
    expect(await ca.orders()).toBe(1);
  });

  test("H22: a copy of the edge's data, put back on a machine that has lost it: nothing is ordered", async () => {
    const before = { account: await account(), certificate: await served() };
    const [copy, putBack] = await commandsOfCopy();
    await master.run(["bash", "-ec", `cd /root && ${copy}`]);
    expectExit(await fulaNode(master, ["leave", "--yes"]), 0);
    await master.run(`docker volume rm ${VOLUME}`);

    await master.run(["bash", "-ec", `cd /root && ${putBack}`]);
    expectExit(await join(), 0);
    expect(await account()).toBe(before.account);
    expect(await served()).toBe(before.certificate);
    expect(await ca.orders()).toBe(1);
    expect(await edgePart()).toMatchObject({ state: "ok" });
    const again = await rejoin(master);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
  });

  test("EDGE_TLS=files: the operator's certificate is served, and a renewed one after the next join", async () => {
    const first = await ca.authority.issue(`DNS:${PUBLIC_HOST}`);
    await put(first);
    const env = (await master.readFile(ENV_FILE)).replaceAll(/^EDGE_ACME.*\n/gm, "");
    await master.writeFile(ENV_FILE, env, 0o600);
    const set = ["EDGE_TLS=files", `EDGE_CERT=${CERT}`, `EDGE_KEY=${KEY}`];
    expectExit(
      await rejoin(
        master,
        set.flatMap((setting) => ["--set", setting]),
      ),
      0,
    );
    expect(await served()).toBe(fingerprintOf(first));
    await master.writeFile("/root/own-ca.pem", ca.authority.certificate);
    const asked = await master.run("curl -sf --cacert /root/own-ca.pem https://master/api/v1/pool");
    expect(JSON.parse(asked.stdout)).toMatchObject({ pool: "test-pool" });
    expect(await edgePart()).toMatchObject({
      state: "attention",
      summary: expect.stringContaining("storage nodes and browsers do not trust its certificate"),
    });
    const nothing = await rejoin(master);
    expectExit(nothing, 0);
    expect(nothing.stdout).toContain("Nothing to do");

    const renewed = await ca.authority.issue(`DNS:${PUBLIC_HOST}`);
    await put(renewed);
    const status = await fulaNode(master, ["status"]);
    expectExit(status, 20);
    expectExit(await rejoin(master), 0);
    expect(await served()).toBe(fingerprintOf(renewed));
    expectExit(await fulaNode(master, ["status"]), 20);
    // The container reads a copy; nobody else on the machine can.
    const [keyFile] = (await master.run("stat -c '%a %u' /opt/fula-master/edge/key.pem")).stdout.split("\n");
    expect(keyFile).toBe("400 61077");
  });

  test("a key that does not fit is refused before the first write, and the old certificate goes on", async () => {
    const before = { files: await watch(master), certificate: await served() };
    const [good, other] = [await ca.authority.issue(`DNS:${PUBLIC_HOST}`), await ca.authority.issue("DNS:x")];
    const cases: readonly (readonly [Certificate, RegExp])[] = [
      [
        { certificate: good.certificate, key: other.key },
        /it is not the key of the certificate in EDGE_CERT/,
      ],
      [other, /it is not for master/],
      [{ certificate: "half a file", key: good.key }, /it is not a certificate in PEM form/],
    ];
    for (const [pair, says] of cases) {
      await put(pair);
      const refused = await rejoin(master);
      expect([21, 22]).toContain(refused.exitCode);
      expect(stderrOf(refused)).toMatch(says);
      expect(stderrOf(refused)).toContain("Changed: nothing");
      expect(await watch(master)).toEqual(before.files);
      expect(await served()).toBe(before.certificate);
    }
    // Also when the container is made again meanwhile.
    await master.run("docker restart fula-edge");
    expect(await edgePart()).toMatchObject({
      state: "attention",
      summary: expect.stringContaining("do not trust its certificate"),
    });
    expect(await served()).toBe(before.certificate);
    await put(good);
    expectExit(await rejoin(master), 0);
    expect(await served()).toBe(fingerprintOf(good));
  });

  test("a CA of its own that is lost: status says that nobody can verify it, and the join names who has the old one", async () => {
    const set = await rejoin(master, ["--set", "EDGE_TLS=internal"]);
    expectExit(set, 0);
    expect(set.stderr.replaceAll(/\s+/g, " ")).toContain(
      "EDGE_CERT and EDGE_KEY stay in .env, but are not used: EDGE_TLS is internal.",
    );
    expect(await edgePart()).toMatchObject({ state: "ok" });
    const old = await rejoin(master, ["--set", "EDGE_IMAGE=caddy:2.10.2-alpine"]);
    expectExit(old, 21);
    expect(stderrOf(old)).toContain("too old, the edge needs 2.11.5 or newer");
    const created = await fulaNode(master, ["invite", "create", "--json"]);
    expectExit(created, 0);
    const { id } = JSON.parse(created.stdout) as { id: string };

    // Caddy makes a new root, and still shows what the old one signed.
    await master.run(`docker stop fula-edge && rm ${DATA}/caddy/pki/authorities/local/root.*`);
    await master.run("docker start fula-edge");
    const lost = await eventually("the edge answers with the old chain", async () => {
      const part = await edgePart();
      return part?.summary.includes("nobody can verify it") === true && part;
    });
    expect(lost.state).toBe("down");
    const [, commands = ""] = /without one, (.*) && fula-node join-as-master$/.exec(lost.todo ?? "") ?? [];
    await master.run(["bash", "-ec", commands]);

    const joined = await rejoin(master);
    expectExit(joined, 0);
    const plan = joined.stdout.replaceAll(/\s+/g, " ");
    expect(plan).toContain("reason: its CA is a new one: nobody who has the old root can verify it");
    expect(plan).toContain("reason: 1 open invite has the old one");
    expect(await edgePart()).toMatchObject({
      state: "attention",
      summary: expect.stringMatching(
        /; its address or CA changed on [0-9-]+: 1 open invite has the old one$/,
      ),
    });
    expectExit(await fulaNode(master, ["invite", "revoke", id]), 0);
    expect(await edgePart()).toMatchObject({ state: "ok" });
    const again = await rejoin(master);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
  });

  test("PUBLIC_HOST that was removed and not joined yet: status says that the edge still runs", async () => {
    const env = (await master.readFile(ENV_FILE)).replaceAll(/^PUBLIC_HOST=.*\n/gm, "");
    await master.writeFile(ENV_FILE, env, 0o600);
    expect(await edgePart()).toMatchObject({
      state: "attention",
      summary: "PUBLIC_HOST is not set, but the edge still runs and serves master",
    });
    const dry = await rejoin(master, ["--dry-run"]);
    expectExit(dry, 20);
    expect(dry.stdout).toMatch(/- remove +fula-edge/);
    expectExit(await rejoin(master), 0);
    expect(await edgePart()).toBeUndefined();
  });
});

/** What docs/ports.md says to type, to copy the edge's data and to put the copy back. */
async function commandsOfCopy(): Promise<readonly [string, string]> {
  const page = (await readPages()).get("docs/ports.md") ?? "";
  const found = fencesOf(page).flatMap(({ text }) => (text.includes("edge-data.tar") ? [text] : []));
  expect(found).toHaveLength(2);
  return found as [string, string];
}
