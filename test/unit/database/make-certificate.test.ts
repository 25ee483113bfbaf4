import { createPrivateKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { createServer, connect } from "node:tls";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, it } from "vitest";
import { certificateMaker } from "../../../src/database/make-certificate.ts";

const DAY_MS = 86_400_000;
const from = new Date(Math.floor(Date.now() / 1000) * 1000 - DAY_MS);
const later = (days: number) => new Date(from.getTime() + days * DAY_MS);
const authorityFor = async (days: number) => {
  const key = await certificateMaker.makeKey();
  return {
    key,
    certificate: await certificateMaker.makeAuthority("CA of a test", key, { from, until: later(days) }),
  };
};
const authority = await authorityFor(11_000);
const key = await certificateMaker.makeKey();
const server = {
  key,
  certificate: await certificateMaker.makeServerCertificate(
    authority,
    ["10.0.0.7", "fd00::1:7", "127.0.0.1"],
    key,
    { from, until: later(400) },
  ),
};

describe("certificates that are made here", () => {
  it("hold what was asked for", () => {
    const ca = new X509Certificate(authority.certificate);
    const own = new X509Certificate(server.certificate);
    expect(ca.ca).toBe(true);
    expect(own.ca).toBe(false);
    expect(ca.verify(ca.publicKey)).toBe(true);
    expect(own.verify(ca.publicKey)).toBe(true);
    expect(own.checkIssued(ca)).toBe(true);
    expect(own.checkPrivateKey(createPrivateKey(server.key))).toBe(true);
    expect(["10.0.0.7", "fd00::1:7", "127.0.0.1"].map((one) => own.checkIP(one) !== undefined)).toEqual([
      true,
      true,
      true,
    ]);
    expect(own.checkIP("10.0.0.8")).toBeUndefined();
    expect([new Date(own.validFrom), new Date(own.validTo)]).toEqual([from, later(400)]);
    // Beyond 2049, where the form of times changes.
    expect(new Date(ca.validTo)).toEqual(later(11_000));
  });

  it("are made for keys on P-256 only", async () => {
    const other = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" });
    const judged = [key, other.toString(), "no key"].map((one) => certificateMaker.isKey(one));
    expect(await Promise.all(judged)).toEqual([true, false, false]);
  });

  it("pass OpenSSL's strict check", async () => {
    const directory = await mkdtemp(join(tmpdir(), "fula-node-made-"));
    try {
      await writeFile(join(directory, "ca.pem"), authority.certificate);
      await writeFile(join(directory, "server.pem"), server.certificate);
      const words = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "10.0.0.7"];
      const { stdout } = await execa("openssl", [...words, "-CAfile", "ca.pem", "server.pem"], {
        cwd: directory,
      });
      expect(stdout).toBe("server.pem: OK");
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("serve a client that trusts that CA alone, and no client that trusts another of the same name", async () => {
    const other = await authorityFor(400);
    const listener = createServer({ cert: server.certificate, key: server.key }, (socket) => socket.end());
    await new Promise<void>((resolve) => void listener.listen(0, "127.0.0.1", resolve));
    const { port } = listener.address() as { port: number };
    const reach = (ca: string) =>
      new Promise<string>((resolve) => {
        const socket = connect({ port, host: "127.0.0.1", ca }, () => {
          socket.destroy();
          resolve("open");
        }).on("error", ({ message }) => resolve(message));
      });
    expect(await reach(authority.certificate)).toBe("open");
    expect(await reach(other.certificate)).not.toBe("open");
    listener.close();
  });
});
