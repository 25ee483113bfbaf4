import { once } from "node:events";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { announceName, openNodesClient } from "../../src/federation/announce-name.ts";
import { createAuthority } from "../support/certificates.ts";
import { makeIdentity } from "../support/node-identity.ts";

test("a master whose certificate is not trusted: an announcement says so, and what to do", async () => {
  const authority = await createAuthority();
  onTestFinished(() => authority.close());
  const { certificate, key } = await authority.issue("IP:127.0.0.1");
  const server = createServer({ cert: certificate, key });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const identity = makeIdentity();
  const addresses = [`/ip4/192.0.2.7/tcp/9096/p2p/${identity.peerId}`];
  const deps = { client: openNodesClient(url), identity, clock: { now: () => new Date() } };
  const request = { pool: "p", name: "berlin", addresses, invite: null };
  await expect(announceName(deps, request)).rejects.toMatchObject({
    exit: "unavailable",
    what: expect.stringMatching(/^TLS with https:\S+ failed: [a-z ]+\.$/) as string,
    remedy: expect.stringMatching(/new invite.*--no-register/) as string,
  });
});
