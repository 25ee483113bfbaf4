import { describe, expect, it } from "vitest";
import type { AnyStep } from "../../src/engine/step.ts";
import { NAMES } from "../../src/model/master-layout.ts";
import { FakeMaster } from "../support/fake-master.ts";
import {
  boxBefore,
  joinedBox,
  LAYOUT,
  lookAt,
  prepare,
  savedValues,
  secretsOf,
  stepOn,
  type Wishes,
} from "../support/master-boxes.ts";
import { stepLaws } from "../support/step-laws.ts";

const MINTED = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"];

const joined = await joinedBox();
/** The step of a run that found no `.env` to read. */
const first = await stepOn(new FakeMaster(), "env-file");

/** Takes keys out of `.env`. */
function lose(host: FakeMaster, ...keys: readonly string[]): void {
  const lines = host.files.textOf(LAYOUT.envFile).split("\n");
  const kept = lines.filter((line) => !keys.some((key) => line.startsWith(`${key}=`)));
  host.files.put(LAYOUT.envFile, kept.join("\n"), 0o600);
}

function loseFile(host: FakeMaster): void {
  host.files.drop(LAYOUT.envFile);
}

function loseContainers(host: FakeMaster, ...names: readonly string[]): void {
  for (const name of names.length > 0 ? names : [...host.docker.boxes.keys()]) host.docker.boxes.delete(name);
}

/** A joined box on which something was lost, and the step as the next run on it makes it. */
async function after(
  arrange: (host: FakeMaster) => void,
  wishes: Wishes = {},
): Promise<{ readonly host: FakeMaster; readonly step: AnyStep }> {
  const host = joined.copy();
  arrange(host);
  return { host, step: await stepOn(host, "env-file", wishes) };
}

const arranged = (arrange: (host: FakeMaster) => void) => (host: unknown) => arrange(host as FakeMaster);

stepLaws("env-file on a fresh box", {
  makeStep: () => first,
  makeHost: () => new FakeMaster(),
  absent: () => {},
  drifts: [
    {
      name: "others can read it",
      arrange: (host) => host.files.put(LAYOUT.envFile, host.files.textOf(LAYOUT.envFile), 0o644),
      names: /others can read it: mode 644/,
    },
    {
      name: "a setting is missing",
      arrange: arranged((host) => lose(host, "REPL_MIN", "KEEP")),
      names: /not as wished: KEEP, REPL_MIN/,
    },
    {
      name: "a secret is missing, and nothing was made with it",
      arrange: arranged((host) => lose(host, "JWT_SECRET")),
      names: /missing: JWT_SECRET/,
    },
    {
      name: "a secret is empty, and nothing was made with it",
      arrange: arranged((host) => {
        lose(host, "SYSTEM_KEY");
        host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}SYSTEM_KEY=\n`, 0o600);
      }),
      names: /missing: SYSTEM_KEY/,
    },
    {
      name: "another version wrote it",
      arrange: (host) => {
        const text = host.files.textOf(LAYOUT.envFile).replace(/FULA_NODE_VERSION=.*/, "FULA_NODE_VERSION=0.0.9");
        host.files.put(LAYOUT.envFile, text, 0o600);
      },
      names: /not as wished: FULA_NODE_VERSION/,
    },
  ],
  foreign: [
    {
      name: "a volume of ours stands, and nothing else",
      arrange: (host) => host.docker.putVolume(NAMES.postgresVolume),
      why: /POSTGRES_PASSWORD, SYSTEM_KEY, JWT_SECRET, SESSION_SECRET, ENCRYPTION_KEY are lost .*Postgres volume/,
    },
    {
      name: "it is a link to another file",
      arrange: (host) => {
        host.files.put("/root/env", "CLUSTERNAME=pool\n", 0o600);
        host.files.putLink("/root/env", LAYOUT.envFile);
      },
      why: /is a symlink, no file/,
    },
  ],
  refusals: [
    {
      name: "a line that is no assignment",
      arrange: (host) => host.files.put(LAYOUT.envFile, "KEEP=3\nthis is no line\n", 0o600),
      exit: "settings",
      what: /Line 2 of .*\.env can't be read/,
    },
  ],
  secrets: secretsOf,
});

stepLaws("env-file on a joined box", {
  makeStep: () => first,
  makeHost: () => joined.copy(),
  absent: arranged(loseFile),
  ours: () => {},
  drifts: [
    ...(
      [
        ["POSTGRES_PASSWORD", NAMES.postgres],
        ["SYSTEM_KEY", NAMES.pinningApi],
        ["JWT_SECRET", NAMES.pinningApi],
        ["SESSION_SECRET", NAMES.pinningApi],
        ["ENCRYPTION_KEY", NAMES.webui],
        ["CLUSTER_SECRET", NAMES.cluster],
      ] as const
    ).map(([key, container]) => ({
      name: `${key} is lost, and ${container} stands`,
      arrange: arranged((host) => lose(host, key)),
      names: new RegExp(`lost, but known to ${container}: ${key}`),
    })),
  ],
  foreign: [
    ...MINTED.map((key) => ({
      name: `${key} is lost, and no container stands`,
      arrange: arranged((host: FakeMaster) => {
        lose(host, key);
        loseContainers(host);
      }),
      why: new RegExp(`^${key} is lost while data made with it lives \\(Postgres volume ${NAMES.postgresVolume}\\)`),
    })),
    {
      name: "the whole file is lost, and no container stands",
      arrange: arranged((host) => {
        loseFile(host);
        loseContainers(host);
      }),
      why: /are lost while data made with them lives/,
    },
    {
      name: "the file is lost, and the containers that stand are not ours",
      arrange: arranged((host) => {
        loseFile(host);
        for (const [name, container] of host.docker.boxes) {
          host.docker.boxes.set(name, { ...container, labels: {} });
        }
      }),
      why: /are lost while data made with them lives/,
    },
    {
      name: "its password does not open the database",
      arrange: arranged((host) => {
        lose(host, "POSTGRES_PASSWORD");
        const text = host.files.textOf(LAYOUT.envFile);
        host.files.put(LAYOUT.envFile, `${text}POSTGRES_PASSWORD=another-one\n`, 0o600);
      }),
      why: /^The password for pinning_user does not open the database at 127\.0\.0\.1:5432\.$/,
    },
  ],
  secrets: secretsOf,
});

describe("what env-file writes", () => {
  it("on a fresh box: every default, and each secret minted once, 0600 from the start", async () => {
    const host = new FakeMaster();
    const { changes } = await lookAt(first, host);
    expect(changes).toHaveLength(1);
    expect(changes[0]).toMatchObject({ kind: "write-env", path: LAYOUT.envFile, mint: MINTED, recover: [] });
    expect(changes[0]?.["set"]).toEqual(expect.arrayContaining(["CLUSTERNAME", "POSTGRES_HOST", "FULA_NODE_VERSION"]));
    for (const change of changes) await first.apply(change, host, () => {});
    expect(host.writes).toEqual([`files.writeAtomic ${LAYOUT.envFile} 600`]);
    const saved = savedValues(host);
    expect(MINTED.map((key) => saved[key]?.length)).toEqual([40, 48, 64, 64, 64]);
    expect(saved["ENCRYPTION_KEY"]).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(MINTED.map((key) => saved[key])).size).toBe(MINTED.length);
    expect(saved).toMatchObject({ CLUSTERNAME: "pool", CLUSTER_PEERNAME: "box", FULA_NODE_VERSION: "0.1.0" });
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

  it("with a flag: that key alone, in its place", async () => {
    const { host, step } = await after(() => {}, { set: { KEEP: "9" } });
    const { changes } = await lookAt(step, host);
    expect(changes).toEqual([
      {
        kind: "write-env",
        summary: `write ${LAYOUT.envFile}: 1 settings`,
        path: LAYOUT.envFile,
        set: ["KEEP"],
        mint: [],
        recover: [],
      },
    ]);
    const before = host.files.textOf(LAYOUT.envFile);
    for (const change of changes) await step.apply(change, host, () => {});
    expect(host.files.textOf(LAYOUT.envFile)).toBe(before.replace("KEEP=28", "KEEP=9"));
  });

  it("without the flag on the next run: nothing is reset", async () => {
    const { host, step } = await after(() => {}, { set: { KEEP: "9" } });
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    const next = await stepOn(host, "env-file");
    expect((await lookAt(next, host)).finding.state).toBe("ours");
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

describe("a lost secret", () => {
  it("comes back with its old value from the container that was made with it", async () => {
    const old = savedValues(joined);
    for (const key of [...MINTED, "CLUSTER_SECRET"]) {
      const { host, step } = await after((box) => lose(box, key));
      const { changes } = await lookAt(step, host);
      expect(changes[0], key).toMatchObject({ mint: [], recover: [{ key }] });
      for (const change of changes) await step.apply(change, host, () => {});
      expect(savedValues(host)[key], key).toBe(old[key]);
    }
  });

  it("comes back with all others when the whole file is lost", async () => {
    const old = savedValues(joined);
    const { host, step } = await after(loseFile);
    const { changes } = await lookAt(step, host);
    expect(changes[0]?.["mint"]).toEqual([]);
    for (const change of changes) await step.apply(change, host, () => {});
    const saved = savedValues(host);
    for (const key of [...MINTED, "CLUSTER_SECRET", "POSTGRES_DB", "POSTGRES_USER"]) {
      expect(saved[key], key).toBe(old[key]);
    }
  });

  it.each([
    ["JWT_SECRET", NAMES.webui],
    ["SESSION_SECRET", NAMES.webui],
    ["SYSTEM_KEY", NAMES.webui],
    ["JWT_SECRET", NAMES.pinningApi],
    ["SESSION_SECRET", NAMES.pinningApi],
    ["SYSTEM_KEY", NAMES.pinningApi],
    ["POSTGRES_PASSWORD", NAMES.webui],
    ["POSTGRES_PASSWORD", NAMES.pinningApi],
    ["POSTGRES_PASSWORD", NAMES.postgres],
  ])("%s comes back from %s alone", async (key, container) => {
    const { host, step } = await after((box) => {
      lose(box, key);
      loseContainers(box, ...[...box.docker.boxes.keys()].filter((name) => name !== container));
    });
    const { changes } = await lookAt(step, host);
    expect(changes[0]).toMatchObject({ mint: [], recover: [{ key, container }] });
    for (const change of changes) await step.apply(change, host, () => {});
    expect(savedValues(host)[key]).toBe(savedValues(joined)[key]);
  });

  it.each(["JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"])(
    "%s is minted anew where an open database has no row made with it",
    async (key) => {
      const { host, step } = await after((box) => {
        lose(box, key);
        loseContainers(box, NAMES.webui, NAMES.pinningApi);
      });
      const { finding, changes } = await lookAt(step, host);
      expect(finding.state).toBe("drifted");
      expect(changes[0]).toMatchObject({ mint: [key], recover: [] });
    },
  );

  it.each([
    ["JWT_SECRET", "api_keys"],
    ["JWT_SECRET", "sessions"],
    ["SESSION_SECRET", "sessions"],
    ["ENCRYPTION_KEY", "encrypted_key"],
    ["ENCRYPTION_KEY", "encrypted_email"],
    ["ENCRYPTION_KEY", "encrypted_wallet_address"],
  ])("%s is never minted over a row of %s", async (key, table) => {
    const { host, step } = await after((box) => {
      lose(box, key);
      loseContainers(box, NAMES.webui, NAMES.pinningApi);
      box.rowCounts.set(table, 1);
    });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`${key} is lost`),
      remedy: expect.stringContaining(`--set ${key}=VALUE`),
    });
    expect(finding).not.toHaveProperty("claim");
  });

  it("may be given back by the operator", async () => {
    const old = savedValues(joined)["JWT_SECRET"] ?? "";
    const arrange = (box: FakeMaster) => {
      lose(box, "JWT_SECRET");
      loseContainers(box, NAMES.webui, NAMES.pinningApi);
      box.rowCounts.set("api_keys", 1);
    };
    const { host, step } = await after(arrange, { set: { JWT_SECRET: old } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["JWT_SECRET"], mint: [] });
  });

  it("that a container holds in a form no setting may have is not brought back", async () => {
    const { host, step } = await after((box) => {
      lose(box, "SYSTEM_KEY");
      for (const name of [NAMES.pinningApi, NAMES.webui]) {
        const container = box.docker.boxes.get(name);
        if (container === undefined) throw new Error(`no ${name}`);
        const env = { ...container.env, SYSTEM_KEY: "disabled", PINNING_SYSTEM_KEY: "disabled" };
        box.docker.boxes.set(name, { ...container, env });
      }
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("SYSTEM_KEY is lost"),
    });
  });
});

describe("a given secret", () => {
  const bound = MINTED.filter((key) => key !== "SYSTEM_KEY");

  it.each(bound)("%s may not replace the one that the living data was made with", async (key) => {
    const other = "ab".repeat(32);
    const { host, step } = await after(() => {}, { set: { [key]: other } });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: `${key} was given, and differs from what the living data was made with.`,
    });
    expect(JSON.stringify(finding)).not.toContain(other);
  });

  it("SYSTEM_KEY may take the old one's place: no data is made with it", async () => {
    const { host, step } = await after(() => {}, { set: { SYSTEM_KEY: "another-system-key" } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["SYSTEM_KEY"], mint: [] });
  });

  it("may replace a saved one while nothing lives", async () => {
    const host = await boxBefore("images");
    const step = await stepOn(host, "env-file", { set: { JWT_SECRET: "ab".repeat(32) } });
    expect((await lookAt(step, host)).changes[0]).toMatchObject({ set: ["JWT_SECRET"], mint: [] });
  });

  it.each(["disabled", "DISABLED"])("SYSTEM_KEY is refused as %s, wherever it comes from", async (value) => {
    const refused = /SYSTEM_KEY .*must be at least 12 characters, and not the word/;
    await expect(prepare(new FakeMaster(), { set: { SYSTEM_KEY: value } })).rejects.toThrow(refused);
    await expect(prepare(new FakeMaster(), { environment: { SYSTEM_KEY: value } })).rejects.toThrow(refused);
    const host = new FakeMaster();
    host.files.put(LAYOUT.envFile, `SYSTEM_KEY=${value}\n`, 0o600);
    await expect(prepare(host)).rejects.toThrow(refused);
  });
});

describe("the database's password", () => {
  const another = (box: FakeMaster): void => {
    lose(box, "POSTGRES_PASSWORD");
    const text = box.files.textOf(LAYOUT.envFile);
    box.files.put(LAYOUT.envFile, `${text}POSTGRES_PASSWORD=another-one\n`, 0o600);
  };

  it("is asked over the network, and halts the run where it does not open", async () => {
    const { host, step } = await after(another);
    const asked: unknown[] = [];
    const { onAsk } = host.postgres;
    host.postgres.onAsk = (target) => {
      asked.push(target);
      return onAsk(target);
    };
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: "The password for pinning_user does not open the database at 127.0.0.1:5432.",
      remedy: expect.stringContaining("--set POSTGRES_PASSWORD=VALUE"),
    });
    expect(asked).toContainEqual(expect.objectContaining({ host: "127.0.0.1", port: 5432, password: "another-one" }));
  });

  it("is compared with the stopped container's, where the database can't be asked", async () => {
    const { host, step } = await after((box) => {
      another(box);
      const container = box.docker.boxes.get(NAMES.postgres);
      if (container !== undefined) box.docker.boxes.set(NAMES.postgres, { ...container, status: "exited" });
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("differs from the one that postgres-pinning was made with"),
    });
  });

  it("is asked of an adopted database, too, before anything is written", async () => {
    const { host, step } = await after((box) => {
      another(box);
      const container = box.docker.boxes.get(NAMES.postgres);
      if (container !== undefined) box.docker.boxes.set(NAMES.postgres, { ...container, labels: {} });
    });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("does not open the database"),
    });
  });

  it("halts, too, where the database that it opens is not there", async () => {
    const { host, step } = await after(() => {}, { set: { POSTGRES_DB: "other_name" } });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("other_name"),
    });
  });

  it("of a database elsewhere guards the secrets by its tables", async () => {
    const set = { POSTGRES_HOST: "10.0.0.9", POSTGRES_PASSWORD: "long enough" };
    const host = new FakeMaster();
    const role = { user: "pinning_user", password: "long enough", database: "pinning_service" };
    host.databasesElsewhere.set("10.0.0.9", role);
    const step = await stepOn(host, "env-file", { set });
    expect((await lookAt(step, host)).changes[0]?.["mint"]).toEqual(MINTED.slice(1));
    host.migrations.applied.add(1);
    host.rowCounts.set("api_keys", 2);
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringMatching(/SYSTEM_KEY, JWT_SECRET.* are lost .*20 tables in the database at 10\.0\.0\.9:5432/),
    });
  });
});
