import { describe, expect, it } from "vitest";
import { inviteCreate } from "../../../src/commands/pool/invite.ts";
import { inviteMaster } from "../../../src/commands/pool/invite-master.ts";
import { readMasterInvite } from "../../../src/federation/master-invite.ts";
import type { World } from "../../../src/world.ts";
import type { RunEvent } from "../../../src/engine/events.ts";
import { readInvite } from "../../../src/federation/invite-signing.ts";
import { generateSigningKeyPem, parseSigningKey, parseVerifyingKey } from "../../../src/machine/signing.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { sha256, VERSION } from "../../support/fake-master.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { makeIdentityFile } from "../../support/node-identity.ts";
import { findUrlProblems } from "../../../src/federation/storage-api-url.ts";
import { OperatorError } from "../../../src/errors.ts";

const ID = makeIdentityFile().peerId;
const KEY = parseSigningKey(generateSigningKeyPem(), "key");
const at = (host: string) => `/ip4/${host}/tcp/9096/p2p/${ID}`;
const API = "https://master.example";

/** `invite create` on a master whose cluster peer tells these addresses: the bootstrap addresses, and warnings. */
async function create(
  addresses: readonly string[],
  flags: {
    readonly bootstrap?: readonly string[];
    readonly bridges?: readonly string[];
    readonly env?: string;
    readonly master?: boolean;
  } = {},
) {
  const { bootstrap = [], bridges = ["172.17.0.0/16", "172.18.0.0/16"], env = "" } = flags;
  const host = new FakeHost();
  host.docker.bridges = bridges;
  host.http.routes.set(`${API}/api/v1/pool`, { status: 200, body: { pool: "pool" } });
  host.files.put(LAYOUT.envFile, `CLUSTERNAME=pool\nPOSTGRES_PASSWORD=only-for-tests\n${env}`, 0o600);
  host.files.put(
    `${LAYOUT.postgresTlsDir}/ca.pem`,
    `-----BEGIN CERTIFICATE-----\nMI${"A".repeat(200)}\n-----END CERTIFICATE-----\n`,
  );
  const warnings: string[] = [];
  const results: Result[] = [];
  const reporter = {
    listen: (event: RunEvent) => {
      if (event.type === "warning") warnings.push(event.text);
    },
    result: (result: Result) => void results.push(result),
  };
  const world = {
    host,
    reporter,
    version: VERSION,
    environment: {},
    hostname: "box",
    hash: sha256,
    openCluster: () => ({ identity: () => Promise.resolve({ id: ID, addresses }) }),
    readSigningKey: () => Promise.resolve(KEY),
    openPool: () => ({ query: () => Promise.resolve([]), close: () => Promise.resolve() }),
  } as unknown as World;
  if (flags.master === true) {
    await inviteMaster({ expires: "24h", bootstrap }, world);
    const { lines, data } = results[0] as Result;
    const { token } = data as { token: string };
    const read = readMasterInvite(token, {
      now: new Date(),
      expected: KEY.id,
      parseKey: parseVerifyingKey,
    });
    return { bootstrap: [read.invite.bootstrap], settings: read.invite.settings, warnings, lines };
  }
  await inviteCreate({ expires: "24h", storageApiUrl: API, bootstrap }, world);
  const { token } = (results[0] as Result).data as { token: string };
  const { invite } = readInvite(token, {
    now: new Date(),
    expected: KEY.id,
    parseKey: parseVerifyingKey,
  });
  return { bootstrap: invite.bootstrap, settings: {}, warnings, lines: [] };
}

describe("invite create", () => {
  it("gives no address of this box's own container networks", async () => {
    const reported = [at("127.0.0.1"), at("172.17.0.1"), at("172.18.0.1"), at("172.20.0.3"), at("192.0.2.7")];
    expect(await create(reported)).toMatchObject({
      bootstrap: [at("172.20.0.3"), at("192.0.2.7")],
      warnings: [],
    });
  });

  it("gives none of them where there is no other, and says what to pass", async () => {
    for (const flags of [{}, { master: true, env: "POSTGRES_BIND=10.0.0.7\n" }])
      await expect(create([at("127.0.0.1"), at("172.18.0.1")], flags)).rejects.toMatchObject({
        exit: "settings",
        why: `It only has addresses of this machine's container networks: ${at("172.18.0.1")}.`,
        remedy: `Pass one that the others can reach: --bootstrap /dns4/HOST/tcp/9096/p2p/${ID}.`,
      });
  });

  it("says what private addresses need, unless one is public", async () => {
    const [own, carrier, six, unique] = [at("10.1.2.3"), at("100.64.0.9"), "2001:db8::7", "fd00::7"];
    const ip6 = (host: string) => `/ip6/${host}/tcp/9096/p2p/${ID}`;
    const { warnings } = await create([own, carrier, ip6(unique)]);
    expect(warnings).toEqual([
      expect.stringMatching(/\(10\.1\.2\.3, 100\.64\.0\.9, fd00::7\).*KUBO_PRIVATE_NETWORK=true/),
    ]);
    const env = "KUBO_PRIVATE_NETWORK=true\n";
    expect((await create([own], { env })).warnings).toEqual([
      expect.stringMatching(/\(10\.1\.2\.3\).*; join each node with --set KUBO_PRIVATE_NETWORK=true/),
    ]);
    for (const open of [at("192.0.2.7"), ip6(six), `/dns4/a.example/tcp/9096/p2p/${ID}`])
      expect((await create([own, open])).warnings).toEqual([]);
  });

  it("gives what the operator names, whatever it is", async () => {
    const bootstrap = [at("172.18.0.1")];
    const { warnings, ...given } = await create([at("192.0.2.7")], { bootstrap });
    expect(given).toMatchObject({ bootstrap });
    expect(warnings).toEqual([expect.stringContaining("(172.18.0.1)")]);
  });

  it("gives nothing where the peer has no address at all", async () => {
    await expect(create([at("127.0.0.1")])).rejects.toMatchObject({ exit: "settings" });
  });
});

it("an address whose certificate can't be verified is not told to stand behind a proxy", async () => {
  const what = "TLS with https://m.example failed: unable to verify the first certificate.";
  const refused = { json: () => Promise.reject(new OperatorError({ exit: "unavailable", what })) };
  const [warning, ...others] = await findUrlProblems(refused, "https://m.example", "pool");
  expect(others).toEqual([]);
  expect(warning).toContain(`${what} Nodes need a certificate for it that they can verify`);
  expect(warning).not.toContain("HTTPS proxy must stand");
});

describe("invite create --master", () => {
  const bound = "POSTGRES_BIND=10.0.0.7\n";

  it("has KUBO_PRIVATE_NETWORK, and says that it is missing where the database has a private address", async () => {
    const open = await create([at("10.0.0.7")], { master: true, env: bound });
    expect(open.settings).toEqual({});
    expect(open.warnings).toEqual([
      expect.stringMatching(/\(10\.0\.0\.7\).*--set KUBO_PRIVATE_NETWORK=true here, then make a new invite/),
    ]);
    const env = `${bound}KUBO_PRIVATE_NETWORK=true\n`;
    expect(await create([at("10.0.0.7")], { master: true, env })).toMatchObject({
      settings: { KUBO_PRIVATE_NETWORK: "true" },
      warnings: [],
    });
  });

  it("is prose of 80 columns: only the invite and commands are wider", async () => {
    const { lines } = await create([at("10.0.0.7")], { master: true, env: bound });
    const isCommand = (line: string) => /^(?:fula-master-invite|mkdir| {2}|npx|To revoke it)/.test(line);
    expect(lines.filter((line) => line.length > 80 && !isCommand(line))).toEqual([]);
  });
});
