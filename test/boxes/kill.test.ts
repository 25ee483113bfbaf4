import { afterEach, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, SERVICE_IMAGE } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import {
  bootForKills,
  expectMaster,
  joinKilledAt,
  lastJournalLine,
  walkJoin,
} from "../support/kill-boxes.ts";
import { expectExit, psql, rejoin, skipped } from "../support/master-box.ts";

// Kills after every change and before every one, at random moments and by power cuts: npm run test:full.
describe.skipIf(skipped !== undefined)("a run that is killed: running again goes on and ends well", () => {
  let box: Box;
  afterEach(() => box?.destroy());

  test("between changes: each run makes three changes and dies", async () => {
    box = await bootForKills("docker");
    expect(await walkJoin(box, "done", 3)).toBeGreaterThan(4);
  });

  test("during the image build", async () => {
    box = await bootForKills("docker");
    expectExit(await joinKilledAt(box, "answer|Step 3"), 137);
    expect((await lastJournalLine(box)).change.kind).toBe("build-image");
    expect((await box.exec(`docker image inspect ${SERVICE_IMAGE}`)).exitCode).toBe(1);
    expectExit(await rejoin(box), 0);
    await expectMaster(box);
  });

  test("during compose up", async () => {
    box = await bootForKills("docker");
    expectExit(await joinKilledAt(box, "child|up|Creat"), 137);
    expect((await lastJournalLine(box)).change.kind).toBe("up");
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    await expectMaster(box);
  });

  test("during the migrations, while an index is built concurrently", async () => {
    box = await bootForKills("docker");
    expectExit(await joinKilledAt(box, "query|CREATE UNIQUE INDEX CONCURRENTLY"), 137);
    expect((await lastJournalLine(box)).change.kind).toBe("migrate");
    const ledger =
      "SELECT string_agg(version || ' ' || state, ', ' ORDER BY version) FROM fula_node.migrations";
    expect(await psql(box, ledger)).toBe("1 applied, 18 applying");
    expectExit(await rejoin(box), 0);
    expect(await psql(box, ledger)).toMatch(
      /^1 applied, 18 applied, 19 applied, 20 applied(, \d+ applied)*$/,
    );
    const invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    expect(await psql(box, invalid)).toBe("0");
    await expectMaster(box);
  });

  test("while apt unpacks the engine on a bare box", async () => {
    box = await bootForKills("plain");
    expectExit(await joinKilledAt(box, "child|install|Unpacking docker.io"), 137);
    expect((await lastJournalLine(box)).change.kind).toBe("install-packages");
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    await expectMaster(box);
  });
});
