import { expect, it } from "vitest";
import { run } from "../../../src/engine/run.ts";
import type { AnyStep } from "../../../src/engine/step.ts";
import { bareBox, prepare } from "../../support/master-boxes.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { FakeStorage, storageStepsOn } from "../../support/storage-fake.ts";

async function firstJoin(host: FakeHost, steps: readonly AnyStep[]) {
  const { plan, changes } = await run({
    steps,
    host,
    journal: { around: (_step, _change, effect) => effect() },
    listen: () => {},
    ask: null,
    dryRun: false,
    yes: true,
    adopted: new Set(),
    consents: new Set(["--provision-writer"]),
  });
  return {
    planned: plan.flatMap((item) => item.changes.map(({ summary }) => summary)),
    done: changes.map(({ change }) => change.summary),
  };
}

it("the first join of a storage node does what its plan says, and nothing else", async () => {
  const host = new FakeStorage();
  host.strip();
  const { planned, done } = await firstJoin(host, await storageStepsOn(host));
  expect(done).toEqual(planned);
});

it("so does the first join of a master", async () => {
  const host = bareBox();
  const { planned, done } = await firstJoin(host, (await prepare(host)).steps);
  expect(done).toEqual(planned);
});
