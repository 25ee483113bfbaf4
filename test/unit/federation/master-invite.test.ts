import { describe, expect, it } from "vitest";
import {
  isMasterInvite,
  type MasterInvite,
  readMasterInvite,
  sharedSettings,
  signMasterInvite,
} from "../../../src/federation/master-invite.ts";
import { readInvite } from "../../../src/federation/invite-signing.ts";
import { whyNoInvite } from "../../../src/join/second-master.ts";
import { generateSigningKeyPem, parseSigningKey, parseVerifyingKey } from "../../../src/machine/signing.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";

const key = parseSigningKey(generateSigningKeyPem(), "a key");
const PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const NOW = new Date("2026-05-01T12:00:00.000Z");
const invite: MasterInvite = {
  id: "0a".repeat(16),
  clusterName: "pool",
  trustedPeers: [PEER],
  bootstrap: `/ip4/10.0.0.7/tcp/9096/p2p/${PEER}`,
  database: {
    host: "10.0.0.7",
    port: "5432",
    name: "pinning_service",
    user: "pinning_user",
    ssl: "verify-full",
    ca: `MI${"A".repeat(200)}`,
  },
  settings: { FULA_PER_GB_MONTH: "4" },
  issuedAt: NOW,
  expiresAt: new Date(NOW.getTime() + 86_400_000),
  publicPem: key.publicPem,
};
const token = signMasterInvite(invite, key);
const read = (text: string, { now = NOW, expected = null as string | null } = {}) =>
  readMasterInvite(text, { now, expected, parseKey: parseVerifyingKey });

/** The token with another payload, signed again by that key. */
function resigned(change: (payload: Record<string, unknown>) => void): string {
  const payload = JSON.parse(Buffer.from(token.split(".")[2] ?? "", "base64url").toString()) as Record<
    string,
    unknown
  >;
  change(payload);
  const bytes = Buffer.from(JSON.stringify(payload));
  const signature = Buffer.from(key.sign(bytes)).toString("base64url");
  return `fula-master-invite.1.${bytes.toString("base64url")}.${signature}`;
}

describe("the invite of a master", () => {
  it("is read as it was written", () => {
    expect(isMasterInvite(token)).toBe(true);
    expect(read(`${token}\n`, { expected: key.id })).toEqual({ invite, fingerprint: key.id, expired: false });
    expect(read(token, { now: invite.expiresAt }).expired).toBe(true);
  });

  it("has no secret, whatever a master's settings are", () => {
    const secrets = MASTER_SETTINGS.filter(({ secret }) => secret === true).map(({ key: name }) => name);
    expect(secrets).toContain("JWT_SECRET");
    const shared = Object.keys(sharedSettings((name) => `${name} as it is`));
    expect(shared.filter((name) => secrets.includes(name))).toEqual([]);
    expect(shared).toContain("FULA_PER_GB_MONTH");
    // Without it, the kubo of the second master does not dial the first one.
    expect(shared).toContain("KUBO_PRIVATE_NETWORK");
  });

  it("leaves out what is the default", () => {
    const defaults = new Map(MASTER_SETTINGS.map(({ key: name, byDefault }) => [name, byDefault]));
    expect(sharedSettings((name) => defaults.get(name))).toEqual({});
  });

  it.each<[string, string, string, RegExp]>([
    ["that was cut", token.slice(0, -20), "integrity", /signature is not valid/],
    ["with another part", `${token}.x`, "integrity", /incomplete or altered/],
    ["of a newer version", token.replace(".1.", ".2."), "newer", /has version 2/],
    ["with a field more", resigned((payload) => void (payload["more"] = 1)), "integrity", /can't be read/],
    [
      "with a secret among its settings",
      resigned((payload) => void (payload["settings"] = { JWT_SECRET: "x".repeat(64) })),
      "integrity",
      /its settings is not valid/,
    ],
    [
      "of another kind",
      resigned((payload) => void (payload["kind"] = "node")),
      "integrity",
      /its kind is not valid/,
    ],
  ])("%s is refused", (_, text, exit, what) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ exit, what: expect.stringMatching(what) }));
  });

  it("of another key is refused", () => {
    expect(() => read(token, { expected: "0".repeat(16) })).toThrow(
      expect.objectContaining({ exit: "integrity", what: expect.stringContaining("is signed by the key") }),
    );
  });

  it("is no invite of a storage node", () => {
    const options = { now: NOW, expected: null, parseKey: parseVerifyingKey };
    expect(() => readInvite(token, options)).toThrow(/This is not an invite/);
  });
});

describe("the row of an invite", () => {
  const record = {
    id: invite.id,
    kind: "master" as const,
    name: null,
    verifyingKey: key.publicPem,
    issuedAt: NOW,
    expiresAt: invite.expiresAt,
    revokedAt: null,
    boundPeer: null,
    boundAt: null,
    boundNames: [],
  };

  it.each([
    ["is good", record, null, NOW, null],
    ["is not there", null, null, NOW, /does not know/],
    ["is one of a node", { ...record, kind: "node" as const }, null, NOW, /does not know/],
    ["was revoked", { ...record, revokedAt: NOW }, null, NOW, /was revoked at/],
    ["is over", record, null, invite.expiresAt, /expired at/],
    ["is this master's, also later", { ...record, boundPeer: "me" }, "me", invite.expiresAt, null],
    ["is another's", { ...record, boundPeer: "x", boundNames: ["b"] }, "me", NOW, /another master \(b\)/],
    ["is another's, for a new one", { ...record, boundPeer: "x" }, null, NOW, /another master \(x\)/],
  ])("that %s", (_, row, own, now, why) => {
    const found = whyNoInvite(row, own, now);
    if (why === null) expect(found).toBeNull();
    else expect(found).toMatch(why);
  });
});
