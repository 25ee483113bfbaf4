import { cronEntryLaws } from "../../support/cron-laws.ts";

await cronEntryLaws({
  id: "sweep-cron",
  path: "/etc/cron.d/fula-replication-sweep",
  schedule: "*/30 * * * *",
  verb: "sweep",
});
