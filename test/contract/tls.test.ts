import { createServer, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { createServer as createPlainServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findCertificateProblems } from "../../src/edge/certificate.ts";
import { openStorageApi } from "../../src/ingest/quota-gate.ts";
import { http, trusting } from "../../src/machine/http.ts";
import { tls } from "../../src/machine/tls.ts";
import { certificatesInPem, pemOfCertificates } from "../../src/settings/certificates.ts";
import { type Authority, type Certificate, createAuthority } from "../support/certificates.ts";
import { FakeHost } from "../support/fake-host.ts";

const NAME = "master.example.org";

let ca: Authority;
let other: Authority;
let served: Certificate;
let server: Server;
let port: number;

beforeAll(async () => {
  [ca, other] = await Promise.all([createAuthority(), createAuthority()]);
  served = await ca.issue(`DNS:${NAME},DNS:localhost`);
  server = createServer({ cert: served.certificate, key: served.key }, (asked, answer) => {
    answer.setHeader("content-type", "application/json");
    answer.end(JSON.stringify({ host: asked.headers.host, path: asked.url }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});

afterAll(async () => {
  server.close();
  await Promise.all([ca.close(), other.close()]);
});

const ask = (at: number, name = NAME, timeoutMs = 5_000) =>
  tls.ask({ address: "127.0.0.1", port: at, name, path: "/api/v1/pool", timeoutMs });

describe("a request with a server name of its own", () => {
  it("gives the answer and what the certificate says, whoever issued it", async () => {
    expect(await ask(port)).toEqual({
      kind: "answer",
      status: 200,
      body: { host: NAME, path: "/api/v1/pool" },
      certificate: {
        issuer: "test CA",
        isSelfSigned: false,
        validFrom: new Date("2020-01-01T00:00:00Z"),
        validTo: new Date("2099-12-31T00:00:00Z"),
        coversName: true,
      },
      distrust: expect.stringMatching(/^[A-Z_]+$/) as string,
    });
    expect(await ask(port, "other.example.org")).toMatchObject({ certificate: { coversName: false } });
  });

  it("says whether the chain is of the roots that its clients have", async () => {
    const asked = { address: "127.0.0.1", port, name: NAME, path: "/", timeoutMs: 5_000 };
    expect(await tls.ask({ ...asked, roots: ca.certificate })).toMatchObject({ distrust: null });
    // Another name and another CA are two faults.
    const named = await tls.ask({ ...asked, name: "other.example.org", roots: ca.certificate });
    expect(named).toMatchObject({ distrust: null, certificate: { coversName: false } });
    expect(await tls.ask({ ...asked, roots: other.certificate })).toMatchObject({
      distrust: expect.stringMatching(/^[A-Z_]+$/) as string,
    });
  });

  it("tells nothing that listens, nothing that answers, and no certificate apart", async () => {
    const open: Socket[] = [];
    const closed = createPlainServer((socket) => void open.push(socket.on("error", () => {})));
    await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
    const { port: free } = closed.address() as AddressInfo;
    expect(await ask(free, NAME, 200)).toEqual({ kind: "silent", why: "no answer within 0.2 s" });
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => closed.close(resolve));
    expect(await ask(free)).toMatchObject({
      kind: "silent",
      why: expect.stringContaining("ECONNREFUSED") as string,
    });
    const nameless = createServer({ SNICallback: (_name, done) => done(new Error("no certificate")) });
    await new Promise<void>((resolve) => nameless.listen(0, "127.0.0.1", resolve));
    const { port: bare } = nameless.address() as AddressInfo;
    expect((await ask(bare)).kind).not.toBe("answer");
    nameless.close();
  });
});

describe("a private CA", () => {
  it("survives the way through one line of .env", () => {
    const both = `${ca.certificate}text between\n${other.certificate}`;
    const line = certificatesInPem(both) ?? "";
    expect(line).not.toMatch(/\s/);
    expect(certificatesInPem(pemOfCertificates(line))).toBe(line);
    expect(certificatesInPem(served.key)).toBeNull();
  });

  it("is trusted where it is given, and nowhere else", async () => {
    const url = `https://localhost:${port}/api/v1/storage`;
    const reader = trusting(http, pemOfCertificates(certificatesInPem(ca.certificate) ?? ""));
    expect(await reader.json(url)).toMatchObject({ status: 200 });
    await expect(http.json(url)).rejects.toMatchObject({ exit: "unavailable" });
    await expect(trusting(http, other.certificate).json(url)).rejects.toMatchObject({ exit: "unavailable" });
    const options = { connections: 1, timeoutMs: 5_000 };
    const api = openStorageApi(`https://localhost:${port}`, { ...options, ca: ca.certificate });
    expect(await api.storage("token")).toMatchObject({ status: 200 });
    api.close();
    const blind = openStorageApi(`https://localhost:${port}`, options);
    await expect(blind.storage("token")).rejects.toThrow(/certificate/);
    blind.close();
  });
});

describe("the operator's certificate and key", () => {
  async function problems(pair: Partial<Certificate>, mode = 0o640): Promise<readonly string[]> {
    const host = Object.assign(new FakeHost(), { tls });
    if (pair.certificate !== undefined) host.files.put("/etc/own/cert.pem", pair.certificate);
    if (pair.key !== undefined) host.files.put("/etc/own/key.pem", pair.key, mode);
    const values = {
      PUBLIC_HOST: NAME,
      EDGE_TLS: "files",
      EDGE_CERT: "/etc/own/cert.pem",
      EDGE_KEY: "/etc/own/key.pem",
    };
    const settings = new Map(
      Object.entries(values).map(([key, value]) => [key, { value, origin: "flag" as const }]),
    );
    return (await findCertificateProblems(host, settings)).map(({ what }) => what);
  }

  it("is good when it is for the name and matches", async () => {
    expect(await problems(served)).toEqual([]);
  });

  it("is refused when something is wrong with it, all at once and without a word of the key", async () => {
    const expired = await ca.issue("DNS:elsewhere.example.org", { expired: true });
    const found = await problems({ certificate: expired.certificate, key: served.key }, 0o644);
    expect(found).toEqual([
      "EDGE_KEY is /etc/own/key.pem: every user of this machine can read it, its mode is 644.",
      "EDGE_KEY is /etc/own/key.pem: it is not the key of the certificate in EDGE_CERT.",
      `EDGE_CERT is /etc/own/cert.pem: it is not for ${NAME}.`,
      "EDGE_CERT is /etc/own/cert.pem: it expired on 2020-01-02.",
    ]);
    const line = served.key.split("\n")[1] ?? "";
    expect(await problems({ ...served, key: served.key.replace("BEGIN", "BEG") })).toEqual([
      "EDGE_CERT is /etc/own/cert.pem: its key is not a private key in PEM form without a passphrase.",
    ]);
    expect(found.join("")).not.toContain(line);
    expect(await problems({ ...served, certificate: "text" })).toEqual([
      "EDGE_CERT is /etc/own/cert.pem: it is not a certificate in PEM form.",
    ]);
    expect(await problems({ certificate: served.certificate })).toEqual([
      "EDGE_KEY is /etc/own/key.pem, which does not exist.",
    ]);
  });
});
