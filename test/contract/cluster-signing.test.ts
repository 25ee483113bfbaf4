import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  generateSigningKeyPem,
  keyFileFault,
  parseSigningKey,
  parseVerifyingKey,
  readSigningKey,
} from "../../src/machine/signing.ts";

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "fula-signing-"));
  path = join(directory, "snapshot-ed25519.pem");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const openssl = (...args: readonly string[]): Buffer => execFileSync("openssl", [...args], { stdio: "pipe" });

test("a key from openssl signs, and its public key verifies what openssl signed", async () => {
  openssl("genpkey", "-algorithm", "ed25519", "-out", path);
  chmodSync(path, 0o600);
  const key = await readSigningKey(path);
  expect(key.publicPem).toBe(openssl("pkey", "-in", path, "-pubout").toString());
  const message = join(directory, "message");
  writeFileSync(message, "a message");
  const signature = join(directory, "signature");
  openssl("pkeyutl", "-sign", "-rawin", "-inkey", path, "-in", message, "-out", signature);
  const verifying = parseVerifyingKey(key.publicPem, "public.pem");
  expect(verifying.id).toBe(key.id);
  expect(verifying.verify(readFileSync(message), readFileSync(signature))).toBe(true);
  expect(verifying.verify(Buffer.from("another"), readFileSync(signature))).toBe(false);
  expect(verifying.verify(readFileSync(message), readFileSync(signature).subarray(1))).toBe(false);
});

test("openssl reads a key generated here, and accepts its signatures", () => {
  const pem = generateSigningKeyPem();
  writeFileSync(path, pem);
  const key = parseSigningKey(pem, path);
  expect(openssl("pkey", "-in", path, "-pubout").toString()).toBe(key.publicPem);
  const [message, signature] = [join(directory, "message"), join(directory, "signature")];
  writeFileSync(message, "a message");
  writeFileSync(signature, key.sign(readFileSync(message)));
  const verify = () =>
    openssl("pkeyutl", "-verify", "-rawin", "-inkey", path, "-sigfile", signature, "-in", message);
  expect(verify().toString()).toContain("Verified Successfully");
  writeFileSync(message, "another");
  expect(verify).toThrow("Command failed: openssl pkeyutl -verify");
});

test.each([0o640, 0o604, 0o660, 0o644])("mode %o is refused", async (mode) => {
  writeFileSync(path, generateSigningKeyPem());
  chmodSync(path, mode);
  await expect(readSigningKey(path)).rejects.toMatchObject({
    exit: "settings",
    what: expect.stringContaining("mode 0"),
  });
});

test("a missing key, another kind of key, a link and a malformed file have different errors, and no error contains a key", async () => {
  await expect(readSigningKey(path)).rejects.toMatchObject({ what: `There is no snapshot key at ${path}.` });
  openssl("genpkey", "-algorithm", "x25519", "-out", path);
  chmodSync(path, 0o600);
  await expect(readSigningKey(path)).rejects.toMatchObject({ what: expect.stringContaining("x25519") });
  writeFileSync(path, "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n");
  await expect(readSigningKey(path)).rejects.toMatchObject({ what: expect.not.stringContaining("secret") });
  const link = join(directory, "link.pem");
  symlinkSync(path, link);
  await expect(readSigningKey(link)).rejects.toMatchObject({ what: expect.stringContaining("symlink") });
});

test("a file of another user is refused", () => {
  expect(keyFileFault({ kind: "file", mode: 0o600, uid: 0 }, 0)).toBeNull();
  expect(keyFileFault({ kind: "file", mode: 0o600, uid: 1000 }, 0)).toMatch(/belongs to user 1000/);
  expect(keyFileFault({ kind: "directory", mode: 0o600, uid: 0 }, 0)).toMatch(/directory/);
});
