import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { invitePayload } from "../../src/federation/invite.ts";
import { makeSigningKey, registrationOf, signPayload, tokenOf } from "../support/invites.ts";
import { makeIdentityFile } from "../support/node-identity.ts";
import { runVerb, type VerbRun } from "../support/run-verb.ts";

const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn("skipped: joining needs root");

const directory = mkdtempSync(join(tmpdir(), "fula-invite-"));
afterAll(() => rmSync(directory, { recursive: true }));

const KEY = makeSigningKey();
const { peerId } = makeIdentityFile();
const INVITE = {
  clusterName: "pool",
  clusterSecret: "a".repeat(64),
  trustedPeers: [peerId],
  bootstrap: [`/ip4/198.51.100.7/tcp/9096/p2p/${peerId}`],
  storageApiUrl: "https://master.example",
  storageApiCa: null,
  nodeName: "berlin-1",
  issuedAt: new Date(),
  expiresAt: new Date(Date.now() + 3_600_000),
  registration: registrationOf(KEY),
};
const good = tokenOf(KEY, INVITE);
const payload = JSON.parse(invitePayload({ ...INVITE, publicPem: KEY.publicPem })) as object;
const signed = (changes: object) => signPayload(KEY, JSON.stringify({ ...payload, ...changes }), 2);

/** A path in the test's directory with that in it. */
function file(name: string, content: string | Buffer): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

const newer = good.replace("fula-invite.2.", "fula-invite.4.");
const never = good.replace("fula-invite.2.", "fula-invite.0.");
const giant = `fula-invite.1.${"A".repeat(1024 ** 2)}.AAAA`;
const altered = good.replace(/.(?=\.[^.]+$)/, (last) => (last === "A" ? "B" : "A"));
mkdirSync(join(directory, "folder"));
symlinkSync("/dev/zero", join(directory, "endless"));

const REFUSED: readonly (readonly [string, () => string, number, RegExp])[] = [
  ["garbage", () => "hello", 28, /does not begin with fula-invite/],
  ["one that was cut short", () => good.slice(0, 60), 28, /incomplete or altered/],
  ["an altered one", () => altered, 28, /altered|can't be read/],
  ["one of a version to come", () => newer, 30, /version 4, but this fula-node only reads versions up to 3/],
  ["one of a version that never was", () => never, 28, /contains no version/],
  ["a giant of 1 MB", () => giant, 28, /longer than any invite/],
  [
    "one whose address has no peer",
    () => signed({ bootstrap: ["/ip4/198.51.100.7/tcp/9096"] }),
    28,
    /bootstrap addresses/,
  ],
  ["one with a signed field of its own", () => signed({ ports: [1] }), 28, /a field that invites of its/],
  ["one whose payload is of another version", () => signed({ version: 1 }), 28, /not of version 2/],
  ["one without an id", () => signed({ id: undefined }), 28, /it has no id/],
  [
    "one with credentials in its address",
    () => signed({ storage_api_url: "https://a:b@c" }),
    28,
    /storage API URL/,
  ],
  ["a file that is not there", () => `@${join(directory, "none")}`, 2, /There is no file .*none/],
  ["a file in a file", () => `@${join(file("plain", "x"), "inside")}`, 2, /There is no file/],
  ["a directory", () => `@${join(directory, "folder")}`, 2, /it is a directory/],
  ["a device", () => `@${join(directory, "endless")}`, 2, /it is not a regular file/],
  ["no name of a file", () => "@", 2, /There is no file/],
  ["an empty file", () => `@${file("empty", "")}`, 28, /it is empty/],
  ["a file of blank lines", () => `@${file("blank", "\n \r\n")}`, 28, /it is empty/],
  ["a file of another kind", () => `@${file("binary", Buffer.from([0xff, 0xfe, 0]))}`, 2, /not UTF-8 text/],
  ["a file that holds a giant", () => `@${file("giant", giant)}`, 2, /larger than 1 MiB/],
  ["a file of 20 MB", () => `@${file("huge", Buffer.alloc(20e6, 65))}`, 2, /larger than/],
  [
    "a file that holds an altered one",
    () => `@${file("altered", `${altered}\n`)}`,
    28,
    /altered|can't be read/,
  ],
];

describe.skipIf(!isRoot)("an invite that is none", () => {
  const base = join(directory, "node");
  const expectRefusal = (run: VerbRun, exitCode: number, says: RegExp): void => {
    expect({ exitCode: run.exitCode, stdout: run.stdout }).toEqual({ exitCode, stdout: "" });
    const printed = run.stderr.replaceAll(/\s+/g, " ");
    expect(printed).toMatch(says);
    expect(printed).toContain("Changed: nothing");
    expect(printed.length).toBeLessThan(2_000);
    expect(existsSync(base)).toBe(false);
  };

  test.each(REFUSED)("%s", async (_name, make, exitCode, says) => {
    const token = make();
    const before = readdirSync(directory);
    expectRefusal(await runVerb(["invite", "show", token]), exitCode, says);
    const node = ["join-as-storage-node", "--yes", "--base-dir", base, "--invite", token];
    expectRefusal(await runVerb(node), exitCode, says);
    expect(readdirSync(directory)).toEqual(before);
  });

  test("a good one is read from a file, blanks around it or not", async () => {
    const path = file("good", `\n  ${good}\r\n\n`);
    const { exitCode, stdout } = await runVerb(["invite", "show", `@${path}`]);
    expect({ exitCode, stdout }).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(KEY.id) });
    expect(stdout).not.toContain("a".repeat(64));
  });

  test("a good one is read from all that `invite create` has printed", async () => {
    const path = file("printed", `${good}\nFingerprint of the key: ${KEY.id}\nValid until tomorrow.\n`);
    const { exitCode, stdout } = await runVerb(["invite", "show", `@${path}`]);
    expect({ exitCode, stdout }).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(KEY.id) });
  });

  test("one of 0.1.0 is read, and shown as one that can't register a name", async () => {
    const { exitCode, stdout } = await runVerb([
      "invite",
      "show",
      tokenOf(KEY, { ...INVITE, registration: null }),
    ]);
    expect({ exitCode, stdout }).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining("none: an invite of 0.1.0"),
    });
  });

  test("characters that turn a line around are shown as escapes", async () => {
    const { exitCode, stdout } = await runVerb([
      "invite",
      "show",
      tokenOf(KEY, { ...INVITE, nodeName: "a\u202egpj.exe\u001b[2J" }),
    ]);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("a\\u202egpj.exe");
    expect(["\u202e", "\u001b"].filter((character) => stdout.includes(character))).toEqual([]);
  });

  test.each([["--yes"], ["--json"], ["--fingerprint="]])(
    "nobody has compared the fingerprint of a good one (%s), so nothing is done",
    async (flag) => {
      const run = await runVerb(["join-as-storage-node", "--base-dir", base, "--invite", good, flag]);
      if (flag === "--fingerprint=") expectRefusal(run, 28, /signed by the key/);
      else {
        expect({ exitCode: run.exitCode, stdout: run.stdout.includes("done") }).toEqual({
          exitCode: 22,
          stdout: false,
        });
        expect(run.stderr.replaceAll(/\s+/g, " ")).toMatch(/Nobody has compared the fingerprint/);
        expect(existsSync(base)).toBe(false);
      }
    },
  );
});
