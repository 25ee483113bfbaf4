import { it } from "vitest";
import { bareBox, prepare, LAYOUT } from "/work/main/test/support/master-boxes.ts";
import { run } from "/work/main/src/engine/run.ts";
import { openJournal } from "/work/main/src/engine/journal.ts";
it("x", async () => {
  const host = bareBox();
  for (let i = 0; i < 3; i++) {
  const t = performance.now();
  try {
  const { steps } = await prepare(host);
  const out = await run({ steps, host, listen: (e) => {}, ask: null, dryRun: false, yes: true, adopted: new Set(), consents: new Set(["--provision-writer"]), journal: openJournal({ files: host.files, path: LAYOUT.journal, attempt: "1", version: "0.1.0", now: () => host.clock.now() }) });
  console.log(out.changes, host.writes);
  } catch (e) { console.log(e, e.problems); }
  console.log(performance.now() - t);
  host.revive();
  }
});
