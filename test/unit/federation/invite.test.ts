import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { formatToken, type Invite, invitePayload, readPayload } from "../../../src/federation/invite.ts";
import { RULES } from "../../../src/settings/rules.ts";
import { makeIdentityFile } from "../../support/node-identity.ts";

const ID = makeIdentityFile().peerId;
const INVITE: Invite = {
  clusterName: "pool",
  clusterSecret: "a".repeat(64),
  trustedPeers: [ID],
  bootstrap: [`/ip4/198.51.100.7/tcp/9096/p2p/${ID}`],
  storageApiUrl: "https://master.example",
  storageApiCa: null,
  nodeName: "berlin-1",
  issuedAt: new Date("2026-11-21T20:00:00.000Z"),
  expiresAt: new Date("2026-11-22T20:00:00.000Z"),
  registration: { id: "0a".repeat(16), signature: "s".repeat(86) },
  publicPem: "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n",
};

/** What is wrong with the payload of an invite in which that is changed. */
function faultOf(changes: Readonly<Record<string, unknown>>): string | null {
  const payload = JSON.parse(invitePayload(INVITE)) as object;
  const read = readPayload(JSON.stringify({ ...payload, ...changes }), "2");
  return "what" in read ? read.what : null;
}

describe("an invite's payload", () => {
  it("is read back as it was written", () => {
    expect(readPayload(invitePayload(INVITE), "2")).toEqual(INVITE);
    const free = { ...INVITE, nodeName: null };
    expect(readPayload(invitePayload(free), "2")).toEqual(free);
    const old = { ...INVITE, registration: null };
    expect(readPayload(invitePayload(old), "1")).toEqual(old);
  });

  it("is of version 3 only with a private CA, so that older nodes read every other one", () => {
    const storageApiCa = `MI${"A".repeat(200)}==`;
    const own = { ...INVITE, storageApiCa };
    expect(readPayload(invitePayload(own), "3")).toEqual(own);
    expect(readPayload(invitePayload(own), "2")).toHaveProperty("what");
    expect(formatToken(own, "a", "b")).toBe("fula-invite.3.a.b");
    expect(formatToken(INVITE, "a", "b")).toBe("fula-invite.2.a.b");
    const broken = invitePayload({ ...own, storageApiCa: "-----BEGIN CERTIFICATE-----" });
    expect(readPayload(broken, "3")).toEqual({
      what: `its CA of the storage API must be ${RULES.certificates.requirement}`,
    });
  });

  it.each([
    ["{", "its payload is not JSON"],
    ["null", "its payload is not a JSON object"],
    ["[]", "its payload is not a JSON object"],
    ['"text"', "its payload is not a JSON object"],
    ["{}", "its trusted peers must be a list of at least one peer id"],
  ])("is not %s", (text, what) => {
    expect(readPayload(text, "2")).toEqual({ what });
  });

  it.each([
    ["trusted_peers", [], "its trusted peers must be a list of at least one peer id"],
    ["trusted_peers", ["*"], "its trusted peers must be a list of at least one peer id"],
    ["trusted_peers", [ID, 7], "its trusted peers must be a list of at least one peer id"],
    ["bootstrap", [], `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}`],
    ["bootstrap", [null], `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}`],
    [
      "bootstrap",
      ["/ip4/192.0.2.7/tcp/9096"],
      `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}`,
    ],
    ["issued_at", "yesterday", "its times are malformed"],
    ["expires_at", undefined, "its times are malformed"],
    ["cluster_name", "a b", `its cluster name must be ${RULES.name.requirement}`],
    ["cluster_secret", 7, `its cluster secret must be ${RULES.hex64.requirement}`],
    ["storage_api_url", "file:///etc", `its storage API URL must be ${RULES.apiUrl.requirement}`],
    ["node_name", 7, "its node name must be a string or null"],
    ["version", 1, "its payload is not of version 2"],
    ["id", undefined, "it has no id"],
    ["id", "0A".repeat(16), "its id must be 32 hexadecimal digits"],
    ["registration", "x", "its registration must be a signature of 64 bytes in base64url"],
    ["ports", [4001], "it has a field that invites of its version do not have"],
    ["public_key", "-----BEGIN PRIVATE KEY-----", "it has no public key"],
  ])("names its %s where that is %j", (key, value, what) => {
    expect(faultOf({ [key]: value })).toBe(what);
  });

  it("has no other version than its token", () => {
    const old = invitePayload({ ...INVITE, registration: null });
    expect(readPayload(old, "2")).toEqual({ what: "it has no id" });
    expect(readPayload(invitePayload(INVITE), "1")).toEqual({ what: "its payload is not of version 1" });
  });

  test("never throws, and never quotes its secret, whatever comes", () => {
    const key = fc.constantFrom(...Object.keys(JSON.parse(invitePayload(INVITE)) as object));
    fc.assert(
      fc.property(key, fc.jsonValue(), fc.string(), (field, value, text) => {
        expect(faultOf({ [field]: value }) ?? "").not.toContain(INVITE.clusterSecret);
        readPayload(text, "1");
      }),
    );
  });
});
