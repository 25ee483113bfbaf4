import { stringify } from "yaml";
import { expressionsOf, readDashboard } from "../support/monitoring.ts";

// For `npm run test:alerts`: the expressions of the dashboard as a file of rules, which promtool can read.

const rules = expressionsOf(await readDashboard()).map((expr, index) => ({
  record: `panel:expression:${index}`,
  expr,
}));
process.stdout.write(stringify({ groups: [{ name: "dashboard", rules }] }));
