import { cronEntryLaws } from "../../support/cron-laws.ts";

await cronEntryLaws({
  id: "snapshot-cron",
  path: "/etc/cron.d/fula-pinset-snapshot",
  schedule: "0 */6 * * *",
  verb: "snapshot take",
});
