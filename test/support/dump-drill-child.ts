import { dumpDrill } from "../../src/drills/dump-drill.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import { createHost } from "../../src/world.ts";

/** The drill in its own process, which can be killed. It prints what it reports. */
const values = JSON.parse(process.env["DRILL"] ?? "{}") as Readonly<Record<string, string>>;
const host = createHost({ env: process.env, migrationsDir: "/nonexistent", toolVersion: "0.0.0-test" });
const outcome = await dumpDrill.run(
  { host, environment: process.env },
  {
    master: { layout: masterLayout(process.env["BASE"] ?? ""), values: (key) => values[key] },
    stop: new AbortController().signal,
    report: (line) => void process.stdout.write(`${line}\n`),
  },
);
process.stdout.write(`${JSON.stringify(outcome)}\n`);
