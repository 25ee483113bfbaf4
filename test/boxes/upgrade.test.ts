import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { FORMER_DEFAULTS } from "../../src/settings/former-defaults.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { FIRST_JOIN, installArtifact, installRelease010, PROGRAM_010 } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  plannedChanges,
  readEnv,
  rejoin,
  skipped,
} from "../support/master-box.ts";
import { peerId, pinContent, pinset } from "../support/storage-boxes.ts";

const isBound = (key: string): boolean =>
  MASTER_SETTINGS.some((spec) => spec.key === key && spec.bound === true);

describe.skipIf(skipped !== undefined)("a master that release 0.1.0 made", () => {
  let box: Box;
  let env: Readonly<Record<string, string>>;
  let known: unknown;

  const know = async (): Promise<unknown> => [await peerId(box), [...(await pinset(box))].toSorted()];

  beforeAll(async () => {
    box = await Box.boot({ name: "upgrade", image: "docker" });
    await installRelease010(box);
    await installArtifact(box);
    expectExit(await box.exec(["node", PROGRAM_010, ...FIRST_JOIN]), 0);
    await pinContent(box);
    env = await readEnv(box);
    known = await know();
  });
  afterAll(() => box?.destroy());

  test("the plan says what is made anew, and the database is not", async () => {
    const plan = await rejoin(box, ["--dry-run", "--json"]);
    expectExit(plan, 20);
    const steps = new Set(plannedChanges(plan.stdout).map(({ step }) => step));
    expect([...steps]).toEqual(expect.arrayContaining(["writer", "cli", "service-image"]));
    expect([...steps]).not.toContain("postgres");
  });

  test("one run makes it a master of this version, with its secrets, its identity and its pins", async () => {
    const database = () => box.run("docker inspect --format '{{.Id}} {{.State.StartedAt}}' postgres-pinning");
    const before = (await database()).stdout;
    expectExit(await rejoin(box), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    // The defaults that 0.1.0 saved are released (test/boxes/settings.test.ts).
    const kept = Object.entries(env).filter(
      ([key, value]) => FORMER_DEFAULTS[key]?.includes(value) !== true || isBound(key),
    );
    const identity = expect.stringMatching(/^[0-9a-f]{32}$/) as string;
    const now = await readEnv(box);
    expect(now).toEqual({
      ...Object.fromEntries(kept),
      FULA_NODE_VERSION: manifest.version,
      MASTER_ID: identity,
    });
    // What 0.1.0 recorded by the host's name is this master's own by now.
    const psql = "docker exec postgres-pinning psql -U pinning_user -d pinning_service -tAc";
    const masters = await box.run(`${psql} "SELECT id, flags FROM masters"`);
    expect(masters.stdout.trim()).toBe(`${now["MASTER_ID"]}|{BILLING_IDEMPOTENCY}`);
    expect(await know()).toEqual(known);
    expect((await database()).stdout).toBe(before);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
  });
});
