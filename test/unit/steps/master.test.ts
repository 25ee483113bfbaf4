import { describe, expect, it } from "vitest";
import type { Change } from "../../../src/engine/step.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { bareBox, join, joinedBox, type JoinOptions, LAYOUT, secretsOf } from "../../support/master-boxes.ts";

type StepChange = { readonly step: string; readonly change: Change };

/** A dry run and the real run after it, on one box. */
async function dryAndReal(
  host: FakeMaster,
  wishes: JoinOptions = {},
): Promise<{ readonly dry: readonly StepChange[]; readonly real: readonly StepChange[] }> {
  const standing = host.snapshot();
  const { plan } = await join(host, { ...wishes, dryRun: true });
  expect(host.writes).toEqual([]);
  expect(host.snapshot()).toEqual(standing);
  const { changes: real } = await join(host, wishes);
  host.revive();
  return { dry: plan.flatMap(({ step, changes }) => changes.map((change) => ({ step, change }))), real };
}

/** The next run, by itself and as it would be without the operator's flags: it has nothing to do. */
async function expectNothingToDo(host: FakeMaster, wishes: JoinOptions = {}): Promise<void> {
  const standing = host.snapshot();
  for (const again of [wishes, { provisionWriter: false }]) {
    const { plan, changes } = await join(host, again);
    expect(plan.flatMap((item) => item.changes)).toEqual([]);
    expect(changes).toEqual([]);
  }
  expect(host.writes).toEqual([]);
  expect(host.snapshot()).toEqual(standing);
}

function withoutSchema(changes: readonly StepChange[]): readonly StepChange[] {
  return changes.filter(({ step }) => step !== "migrations" && step !== "flags");
}

function inShort(changes: readonly StepChange[]): readonly string[] {
  return changes.map(({ step, change }) => `${step} ${change.kind}`);
}

describe("a bare box", () => {
  it("becomes a master, in this order", async () => {
    const host = bareBox();
    const { changes } = await join(host);
    expect(inShort(changes)).toEqual([
      "docker install-packages",
      "docker start-engine",
      "cli install-cli",
      "cli point-current",
      "env-file write-env",
      "writer pull-image",
      "writer pull-image",
      "writer write-compose",
      "writer up",
      "service-image pull-image",
      "service-image build-image",
      "compose-file write-compose",
      "postgres pull-image",
      "postgres up",
      "migrations migrate",
      "flags record-flags",
      "services up",
      "signing-key make-signing-key",
      "signing-key write-verifying-key",
      "cron install-packages",
      "cron start-cron",
      "snapshot-cron write-cron-entry",
      "sweep-cron write-cron-entry",
      "first-snapshot take-snapshot",
    ]);
    const running = [...host.docker.boxes.values()].filter(({ status }) => status === "running");
    expect(running.map(({ name }) => name).sort()).toEqual(
      [NAMES.pinningApi, NAMES.webui, NAMES.kubo, NAMES.cluster, NAMES.postgres].sort(),
    );
  });

  it("announces exactly the changes that it then makes; afterwards nothing is left to do", async () => {
    const host = bareBox();
    const { dry, real } = await dryAndReal(host);
    expect(dry).toEqual(real);
    await expectNothingToDo(host);
  });

  it("has each secret on disk, 0600, before the thing that is made with it", async () => {
    const host = bareBox();
    await join(host);
    const at = (pattern: RegExp) => host.writes.findIndex((write) => pattern.test(write));
    const env = at(/writeAtomic \/opt\/fula-master\/\.env 600$/);
    expect(env).toBeGreaterThan(0);
    expect(host.writes.filter((write) => write.includes("/.env"))).toHaveLength(1);
    expect(env).toBeLessThan(at(/composeUp/));
    expect(at(/snapshot-ed25519\.pem 600$/)).toBeLessThan(at(/snapshot take/));
  });

  it("keeps its secrets out of everything that is printed and journaled", async () => {
    const host = bareBox();
    const events: string[] = [];
    const { plan } = await join(host, { listen: (event) => events.push(JSON.stringify(event)) });
    const texts = [...events, JSON.stringify(plan), host.files.textOf(LAYOUT.journal)];
    const secrets = [...secretsOf(host), ...host.generated];
    expect(secrets.length).toBeGreaterThan(6);
    expect(secrets.filter((secret) => texts.some((text) => text.includes(secret)))).toEqual([]);
  });

  it("needs the operator's word for packages and for a writer, and is not touched without it", async () => {
    const host = bareBox();
    const standing = host.snapshot();
    await expect(join(host, { yes: false, provisionWriter: false })).rejects.toMatchObject({
      exit: "preflight",
      changed: undefined,
      problems: [{ subject: "--yes" }, { subject: "--provision-writer" }, { subject: "--yes" }],
    });
    expect(host.snapshot()).toEqual(standing);
  });
});

describe("a run without a network", () => {
  it("loads an archive instead of pulling, and says so beforehand, exactly", async () => {
    const host = new FakeMaster();
    const imagesArchive = "/root/images.tar";
    host.files.put(imagesArchive, "layers");
    host.docker.archives.set(imagesArchive, [...host.docker.registry.keys()]);
    host.docker.registry.clear();
    const { dry, real } = await dryAndReal(host, { imagesArchive });
    expect(inShort(real)).toContain("images load-images");
    expect(inShort(real).filter((text) => text.endsWith("pull-image"))).toEqual([]);
    expect(dry).toEqual(real);
    await expectNothingToDo(host, { imagesArchive });
  });
});

const { postgres: POSTGRES, pinningApi: API, webui: WEBUI } = NAMES;

function withoutKey(host: FakeMaster, key: string): void {
  const text = host.files.textOf(LAYOUT.envFile).replace(new RegExp(`^${key}=.*\n`, "m"), "");
  host.files.put(LAYOUT.envFile, text, 0o600);
}

function patch(host: FakeMaster, name: string, fields: object): void {
  const container = host.docker.boxes.get(name);
  if (container === undefined) throw new Error(`no container ${name}`);
  host.docker.boxes.set(name, { ...container, ...fields });
}

const joined = await joinedBox();

describe("a half-installed box is repaired by the next run, which does what its dry run says", () => {
  it.each<readonly [string, (host: FakeMaster) => void, readonly string[]]>([
    ["compose file gone", (host) => host.files.drop(LAYOUT.composeFile), ["compose-file write-compose"]],
    ["a container removed", (host) => void host.docker.boxes.delete(WEBUI), ["services up"]],
    ["a container stopped", (host) => patch(host, API, { status: "exited", pid: 0 }), ["services up"]],
    ["a service unhealthy", (host) => patch(host, WEBUI, { health: "unhealthy" }), ["services restart"]],
    ["postgres stopped", (host) => patch(host, POSTGRES, { status: "exited", pid: 0 }), ["postgres up"]],
    [
      "all containers removed",
      (host) => host.docker.boxes.clear(),
      ["writer up", "postgres up", "services up"],
    ],
    [
      "a setting missing that data is bound to",
      (host) => withoutKey(host, "POSTGRES_IMAGE"),
      ["env-file write-env"],
    ],
    ["a default missing", (host) => withoutKey(host, "KEEP"), []],
    ["a secret missing", (host) => withoutKey(host, "JWT_SECRET"), ["env-file write-env"]],
    ["the password missing", (host) => withoutKey(host, "POSTGRES_PASSWORD"), ["env-file write-env"]],
    [
      "the database's name missing, and it was another than the default",
      (host) => withoutKey(host, "POSTGRES_DB"),
      ["env-file write-env"],
    ],
    ["the whole .env gone", (host) => host.files.drop(LAYOUT.envFile), ["env-file write-env"]],
    [
      "a cron file gone",
      (host) => host.files.drop("/etc/cron.d/fula-replication-sweep"),
      ["sweep-cron write-cron-entry"],
    ],
    [
      "a cron file edited",
      (host) => {
        const path = "/etc/cron.d/fula-pinset-snapshot";
        host.files.put(path, `${host.files.textOf(path)}# mine\n`);
      },
      ["snapshot-cron write-cron-entry"],
    ],
    [
      "the installed CLI gone",
      (host) => host.files.drop(LAYOUT.cliDir),
      ["cli install-cli", "cli point-current"],
    ],
    [
      "the public key gone",
      (host) => host.files.drop(LAYOUT.verifyingKey),
      ["signing-key write-verifying-key"],
    ],
    [
      "cron stopped",
      (host) => {
        host.system.processes.delete("cron");
        host.system.putUnit("cron");
      },
      ["cron start-cron"],
    ],
    ["the snapshots gone", (host) => host.files.drop(LAYOUT.snapshotsDir), ["first-snapshot take-snapshot"]],
  ])("%s", async (_name, breakIt, expected) => {
    const host = joined.copy();
    const secrets = secretsOf(host);
    breakIt(host);
    host.revive();
    const { dry, real } = await dryAndReal(host);
    expect(inShort(real)).toEqual(expected);
    // What a database that is down still needs is unknown: every migration is named, and the flags.
    expect(withoutSchema(dry)).toEqual(real);
    expect(dry.length > real.length).toBe(expected.includes("postgres up"));
    expect(secretsOf(host)).toEqual(secrets);
    await expectNothingToDo(host);
  });

  it("a key lost before any snapshot was signed with it: a new one, and its snapshot", async () => {
    const host = joined.copy();
    for (const path of [LAYOUT.signingKey, LAYOUT.snapshotsDir]) host.files.drop(path);
    const { dry, real } = await dryAndReal(host);
    expect(dry).toEqual(real);
    expect(inShort(real)).toContain("signing-key make-signing-key");
  });
});
