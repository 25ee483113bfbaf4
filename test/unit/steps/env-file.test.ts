import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/layout.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import type { Setting } from "../../../src/settings/settings.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import {
  after,
  joined,
  lose,
  loseContainers,
  loseFile,
  MINTED,
  replaceSaved,
} from "../../support/lost-settings.ts";
import { LAYOUT, lookAt, savedValues, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

/** Each secret that can be recovered, and the container that is asked for it first. */
const TELLERS = [
  ["POSTGRES_PASSWORD", NAMES.postgres],
  ["SYSTEM_KEY", NAMES.pinningApi],
  ["JWT_SECRET", NAMES.pinningApi],
  ["SESSION_SECRET", NAMES.pinningApi],
  ["ENCRYPTION_KEY", NAMES.webui],
  ["CLUSTER_SECRET", NAMES.cluster],
] as const;

/** The step of a run that found no `.env` to read. */
const first = await stepOn(new FakeMaster(), "env-file");

const arranged = (arrange: (host: FakeMaster) => void) => (host: unknown) => arrange(host as FakeMaster);

stepLaws("env-file on a fresh box", {
  makeStep: () => first,
  makeHost: () => new FakeMaster(),
  absent: () => {},
  drifts: [
    {
      name: "others can read it",
      arrange: (host) => host.files.put(LAYOUT.envFile, host.files.textOf(LAYOUT.envFile), 0o644),
      names: /other users can read it: mode 644/,
    },
    {
      name: "a default that data is bound to is missing",
      arrange: arranged((host) => lose(host, "POSTGRES_IMAGE", "WRITER_DIR")),
      names: /WRITER_DIR \(none\) -> \/opt\/fula-writer \(default\)/,
    },
    {
      name: "a secret is missing, and nothing was made with it",
      arrange: arranged((host) => lose(host, "JWT_SECRET")),
      names: /missing: JWT_SECRET/,
    },
    {
      name: "a secret is empty, and nothing was made with it",
      arrange: arranged((host) => replaceSaved(host, "SYSTEM_KEY", "")),
      names: /missing: SYSTEM_KEY/,
    },
    {
      name: "another version wrote it",
      arrange: (host) => {
        const text = host.files
          .textOf(LAYOUT.envFile)
          .replace(/FULA_NODE_VERSION=.*/, "FULA_NODE_VERSION=0.0.9");
        host.files.put(LAYOUT.envFile, text, 0o600);
      },
      names: /FULA_NODE_VERSION 0\.0\.9 -> /,
    },
  ],
  foreign: [
    {
      name: "a volume of ours exists, and nothing else",
      arrange: (host) => host.docker.putVolume(NAMES.postgresVolume),
      why: /POSTGRES_PASSWORD, SYSTEM_KEY, JWT_SECRET, SESSION_SECRET, ENCRYPTION_KEY are missing, .*Postgres volume/,
    },
    {
      name: "it is a link to another file",
      arrange: (host) => {
        host.files.put("/root/env", "CLUSTERNAME=pool\n", 0o600);
        host.files.putLink("/root/env", LAYOUT.envFile);
      },
      why: /is a symlink, not a file/,
    },
  ],
  refusals: [
    {
      name: "a line that is not an assignment",
      arrange: (host) => host.files.put(LAYOUT.envFile, "KEEP=3\nthis is no line\n", 0o600),
      exit: "settings",
      what: /Line 2 of .*\.env is not valid/,
    },
  ],
  secrets: secretsOf,
});

stepLaws("env-file on a joined box", {
  makeStep: () => first,
  makeHost: () => joined.copy(),
  absent: arranged(loseFile),
  ours: () => {},
  drifts: TELLERS.map(([key, container]) => ({
    name: `${key} is lost, and ${container} stands`,
    arrange: arranged((host) => lose(host, key)),
    names: new RegExp(`missing, but the container ${container} still has it: ${key}`),
  })),
  foreign: [
    // No data depends on the password of ipfs-cluster: it is generated again.
    ...MINTED.filter((key) => key !== "CLUSTER_BASIC_AUTH").map((key) => ({
      name: `${key} is lost, and no container stands`,
      arrange: arranged((host: FakeMaster) => {
        lose(host, key);
        loseContainers(host);
      }),
      why: new RegExp(
        `^${key} is missing, but data that needs it exists \\(Postgres volume ${NAMES.postgresVolume}\\)`,
      ),
    })),
    {
      name: "the whole file is lost, and no container exists",
      arrange: arranged((host) => {
        loseFile(host);
        loseContainers(host);
      }),
      why: /are missing, but data that needs them exists/,
    },
    {
      name: "the file is lost, and the existing containers are foreign",
      arrange: arranged((host) => {
        loseFile(host);
        for (const [name, container] of host.docker.boxes) {
          host.docker.boxes.set(name, { ...container, labels: {} });
        }
      }),
      why: /are missing, but data that needs them exists/,
    },
    {
      name: "its password does not open the database",
      arrange: arranged((host) => replaceSaved(host, "POSTGRES_PASSWORD", "another-one")),
      why: /^The database at 127\.0\.0\.1:5432 refused the password for pinning_user\.$/,
    },
  ],
  secrets: secretsOf,
});

describe("what env-file writes", () => {
  it("on a fresh box: what data is bound to, and each secret generated once, 0600 from the start", async () => {
    const host = new FakeMaster();
    const { changes } = await lookAt(first, host);
    expect(changes).toHaveLength(1);
    expect(changes[0]).toMatchObject({
      kind: "write-env",
      path: LAYOUT.envFile,
      mint: ["MASTER_ID", ...MINTED],
      recover: [],
    });
    expect(changes[0]?.["set"]).toEqual(
      expect.arrayContaining(["CLUSTERNAME", "POSTGRES_HOST", "FULA_NODE_VERSION"]),
    );
    for (const change of changes) await first.apply(change, host, () => {});
    expect(host.writes).toEqual([`files.writeAtomic ${LAYOUT.envFile} 600`]);
    const saved = savedValues(host);
    expect(MINTED.map((key) => saved[key]?.length)).toEqual([50, 40, 48, 64, 64, 64]);
    expect(saved["CLUSTER_BASIC_AUTH"]).toMatch(/^fula-node:[A-Za-z0-9_-]{40}$/);
    expect(saved["ENCRYPTION_KEY"]).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(MINTED.map((key) => saved[key])).size).toBe(MINTED.length);
    expect(Object.keys(saved).filter((key) => !MINTED.includes(key))).toEqual([
      "CLUSTERNAME",
      "CLUSTER_PEERNAME",
      "MASTER_ID",
      "CLUSTER_SECRET",
      "WRITER_DIR",
      "POSTGRES_HOST",
      "POSTGRES_PORT",
      "POSTGRES_DB",
      "POSTGRES_USER",
      "POSTGRES_IMAGE",
      "FULA_NODE_VERSION",
    ]);
    expect(saved).toMatchObject({ CLUSTERNAME: "pool", CLUSTER_PEERNAME: "box", FULA_NODE_VERSION: "0.1.0" });
    expect(host.files.textOf(LAYOUT.envFile)).toContain("\n# image of kubo\n# KUBO_IMAGE=ipfs/kubo:");
  });

  it("on a fresh box, from the environment: the value, and the plan shows it with its source", async () => {
    const host = new FakeMaster();
    const environment = { REPL_MIN: "3", CLUSTER_BASIC_AUTH: "me:hidden-words" };
    const step = await stepOn(host, "env-file", { environment });
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "absent",
      settings: ["CLUSTER_BASIC_AUTH (none) -> (secret) (environment)", "REPL_MIN (none) -> 3 (environment)"],
    });
    expect(JSON.stringify([finding, changes])).not.toContain("hidden-words");
    for (const change of changes) await step.apply(change, host, () => {});
    expect(savedValues(host)).toMatchObject(environment);
  });

  it("over the operator's own file: only what is missing, everything else byte for byte", async () => {
    const theirs = "# mine\nGOOGLE_CLIENT_ID='a $b'  # note\n\nexport KEEP=7\nMY_OWN=x=y\n";
    const host = new FakeMaster();
    host.files.put(LAYOUT.envFile, theirs, 0o600);
    const step = await stepOn(host, "env-file");
    const { changes } = await lookAt(step, host);
    expect(changes[0]?.["set"]).not.toContain("KEEP");
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(LAYOUT.envFile).startsWith(theirs)).toBe(true);
  });

  it("with a flag: a plan shows the key, its old and new value and where that comes from, and never a secret", async () => {
    const { host, step } = await after(() => {}, {
      set: { KEEP: "9", CLUSTER_BASIC_AUTH: "me:hidden-words" },
    });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      drift: ["CLUSTER_BASIC_AUTH (secret) -> (secret) (--set)", "KEEP (none) -> 9 (--set)"],
    });
    expect(JSON.stringify(finding)).not.toContain("hidden-words");
  });

  it("with a flag: that key alone, in its place", async () => {
    const { host, step } = await after((box) => replaceSaved(box, "KEEP", "8"), { set: { KEEP: "9" } });
    const before = host.files.textOf(LAYOUT.envFile);
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "write-env",
        summary: `write ${LAYOUT.envFile}: 1 setting`,
        path: LAYOUT.envFile,
        set: ["KEEP"],
        mint: [],
        recover: [],
        release: [],
      },
    ]);
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(LAYOUT.envFile)).toBe(before.replace("KEEP=8", "KEEP=9"));
  });

  it("that begins the billing: the plan says it, and not where the billing goes on or stays off", async () => {
    const vault = `0x${"1a".repeat(20)}`;
    const begins = /; billing begins: .* and for the present hour at once$/;
    const summaryOf = async (arrange: (box: FakeMaster) => void, set: Readonly<Record<string, string>>) => {
      const { host, step } = await after(arrange, { set });
      return (await lookAt(step, host)).changes[0]?.summary;
    };
    const add = (text: string) => (box: FakeMaster) =>
      box.files.put(LAYOUT.envFile, `${box.files.textOf(LAYOUT.envFile)}${text}\n`, 0o600);
    const saved = add(`VAULT_ADDRESS=${vault}`);
    expect(await summaryOf(() => {}, { VAULT_ADDRESS: vault })).toMatch(begins);
    expect(await summaryOf(add(`VAULT_ADDRESS=0x${"0".repeat(40)}`), { VAULT_ADDRESS: vault })).toMatch(
      begins,
    );
    expect(
      await summaryOf(add(`VAULT_ADDRESS=${vault}\nBILLING_IDEMPOTENCY=false`), {
        BILLING_IDEMPOTENCY: "true",
      }),
    ).toMatch(begins);
    for (const quiet of [
      await summaryOf(saved, { VAULT_ADDRESS: `0x${"2b".repeat(20)}` }),
      await summaryOf(saved, { KEEP: "9" }),
      await summaryOf(() => {}, { VAULT_ADDRESS: `0x${"0".repeat(40)}` }),
      await summaryOf(() => {}, { VAULT_ADDRESS: vault, BILLING_IDEMPOTENCY: "false" }),
    ])
      expect(quiet).toMatch(/: [12] settings?$/);
    // The pool bills already if its invite has the setting, or if a container that is adopted did.
    const { setsOff } = MASTER_SETTINGS.find(({ key }) => key === "VAULT_ADDRESS") ?? {};
    for (const [more, what] of [
      [{ origin: "flag" }, expect.stringMatching(/^billing begins/) as string],
      [{ origin: "flag", offeredBy: "--invite" }, null],
      [{ origin: "adopted" }, null],
    ] as const)
      expect(
        setsOff?.(
          () => undefined,
          new Map<string, Setting>([
            ["VAULT_ADDRESS", { value: vault, ...more }],
            ["BILLING_IDEMPOTENCY", { value: "true", origin: "default" }],
          ]),
        ),
      ).toEqual(what);
    const fresh = new FakeMaster();
    const step = await stepOn(fresh, "env-file", { set: { VAULT_ADDRESS: vault } });
    expect((await lookAt(step, fresh)).changes[0]?.summary).toMatch(begins);
  });

  it("without the flag on the next run: nothing is reset", async () => {
    const { host, step } = await after(() => {}, { set: { KEEP: "9" } });
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    const next = await stepOn(host, "env-file");
    expect((await lookAt(next, host)).finding.state).toBe("ours");
  });

  it("over comments of another version: nothing, since descriptions of settings may change", async () => {
    const { host, step } = await after((box) => {
      const text = box.files.textOf(LAYOUT.envFile);
      const older = text.replaceAll(/^# .*$/gm, "# another description");
      expect(older).not.toBe(text);
      box.files.put(LAYOUT.envFile, older, 0o600);
    });
    const { finding, changes } = await lookAt(step, host);
    expect(finding.state).toBe("ours");
    expect(changes).toEqual([]);
  });

  it("for a loose mode alone: the mode alone", async () => {
    const { host, step } = await after((box) => {
      box.files.put(LAYOUT.envFile, box.files.textOf(LAYOUT.envFile), 0o640);
    });
    expect((await lookAt(step, host)).changes).toEqual([
      { kind: "restrict-env", summary: `make ${LAYOUT.envFile} readable by root only`, path: LAYOUT.envFile },
    ]);
  });
});
