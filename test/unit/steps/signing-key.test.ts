import { describe, expect, it } from "vitest";
import { putSnapshot } from "../../support/fake-master.ts";
import { boxBefore, joinedBox, LAYOUT, lookAt, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const { signingKey: KEY, verifyingKey: PUBLIC } = LAYOUT;

const before = await boxBefore("signing-key");
const step = await stepOn(before, "signing-key");

stepLaws("signing-key", {
  makeStep: () => step,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "others could read it",
      arrange: (host) => host.files.put(KEY, host.files.textOf(KEY), 0o644),
      names: /other users can read it \(mode 644\)/,
    },
    {
      name: "its group could read it",
      arrange: (host) => host.files.put(KEY, host.files.textOf(KEY), 0o640),
      names: /other users can read it \(mode 640\)/,
    },
    {
      name: "its public key is missing",
      arrange: (host) => host.files.drop(PUBLIC),
      names: /is not its public key/,
    },
    {
      name: "its public key is another key's",
      arrange: (host) =>
        host.files.put(PUBLIC, "-----BEGIN PUBLIC KEY-----\nother\n-----END PUBLIC KEY-----\n"),
      names: /is not its public key/,
    },
    {
      name: "all at once",
      arrange: (host) => {
        host.files.put(KEY, host.files.textOf(KEY), 0o666);
        host.files.drop(PUBLIC);
      },
      names: /mode 666[^]*not its public key/,
    },
  ],
  foreign: [
    {
      name: "the key is a symbolic link",
      arrange: (host) => {
        host.files.put("/root/key.pem", "a key", 0o600);
        host.files.putLink("/root/key.pem", KEY);
      },
      why: /snapshot-ed25519\.pem is a symlink, not a file/,
    },
    {
      name: "the key is a symbolic link to a file that is not there now",
      arrange: (host) => host.files.putLink("/mnt/usb/key.pem", KEY),
      why: /snapshot-ed25519\.pem is a symlink, not a file/,
    },
    {
      name: "the key is missing, and a snapshot signed with it exists",
      arrange: (host) => putSnapshot(host, "20250101T000000Z"),
      why: /snapshot-ed25519\.pem is missing, but \S+ has 1 snapshots? signed with it/,
    },
    {
      name: "the key is missing, its public key and several snapshots exist",
      arrange: (host) => {
        host.files.put(PUBLIC, "-----BEGIN PUBLIC KEY-----\nolder\n-----END PUBLIC KEY-----\n");
        for (const stamp of ["20250101T000000Z", "20250102T000000Z"]) putSnapshot(host, stamp);
      },
      why: /is missing, but \S+ has 2 snapshots signed with it/,
    },
    {
      name: "the key is missing, and upstream's snapshots exist",
      arrange: (host) => {
        host.files.put(`${LAYOUT.snapshotsDir}/pinset-20250101T000000Z.json`, "[]");
        host.files.put(`${LAYOUT.snapshotsDir}/pinset-20250101T000000Z.sig`, "signature");
      },
      why: /is missing, but \S+ has 1 snapshot/,
    },
  ],
  refusals: [
    {
      name: "the file is not an ed25519 key",
      arrange: (host) => host.files.put(KEY, "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", 0o600),
      exit: "settings",
      what: /is no ed25519 key/,
    },
    {
      name: "what is there is empty",
      arrange: (host) => host.files.put(KEY, "", 0o600),
      exit: "settings",
      what: /is no ed25519 key/,
    },
  ],
  secrets: secretsOf,
});

describe("signing-key", () => {
  it("is made 0600, and then its public key 0644", async () => {
    const host = before.copy();
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      { kind: "make-signing-key", summary: `create the ed25519 key ${KEY}`, path: KEY },
      { kind: "write-verifying-key", summary: `write the public key ${PUBLIC}`, path: PUBLIC },
    ]);
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.writes).toEqual([`files.writeAtomic ${KEY} 600`, `files.writeAtomic ${PUBLIC} 644`]);
  });

  it("of upstream is adopted: only its public key is written", async () => {
    const host = before.copy();
    const pem = await host.signing.generate();
    host.files.put(KEY, pem, 0o600);
    putSnapshot(host, "20250101T000000Z");
    const { changes } = await lookAt(step, host);
    expect(changes).toMatchObject([{ kind: "write-verifying-key" }]);
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(KEY)).toBe(pem);
  });

  it("never replaces an existing one", async () => {
    const host = await joinedBox();
    const pem = host.files.textOf(KEY);
    host.files.put(KEY, pem, 0o644);
    host.files.drop(PUBLIC);
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(KEY)).toBe(pem);
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });
});
