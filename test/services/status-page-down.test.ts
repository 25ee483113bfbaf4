import { createServer, type Server } from "node:net";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { BILLING } from "../support/billing.ts";
import { migrate } from "../support/names-database.ts";
import { writeRecords } from "../support/page-records.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { freePort } from "../support/free-port.ts";
import { factsIn, recordsDir, signIn, statesIn, visit } from "./status-page.ts";
import { startWebui, STATUS_PAGE } from "./web-api.ts";

const SECTIONS = [
  "Masters",
  "Pin queue",
  "Space",
  "Pins",
  "Nodes",
  "Last sweep",
  "Copies",
  "Snapshots",
  "Billing",
];
/** A question has 4 s. One after the other, two of them have 8. */
const IN_TIME_MS = 7_500;

/** A server that accepts connections and never answers. */
async function startSilent(): Promise<number> {
  const server: Server = createServer((socket) => void socket.on("error", () => {}));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

describeOnPostgres(
  "the status page while something is down",
  (postgres) => {
    test.each([
      { database: "up", cluster: "refuses" },
      { database: "up", cluster: "hangs" },
      { database: "refuses", cluster: "refuses" },
      { database: "hangs", cluster: "refuses" },
      { database: "hangs", cluster: "hangs" },
    ] as const)(
      "database $database, cluster $cluster: every section, in time, nothing green",
      async (down) => {
        const target = await postgres.createDatabase();
        const portOf = async (how: "up" | "refuses" | "hangs") =>
          how === "up" ? target.port : how === "hangs" ? startSilent() : freePort();
        const directory = await recordsDir();
        await writeRecords(directory, { nodes: 6, pins: 48_120 });
        const cluster = `http://127.0.0.1:${await portOf(down.cluster)}`;
        const webui = await startWebui(
          { ...target, port: await portOf(down.database) },
          {
            billing: BILLING,
            cluster: { url: cluster, basicAuth: null },
            statusPage: { ...STATUS_PAGE, recordsDir: directory, kuboUrl: cluster, pinningUrl: cluster },
          },
        );
        const cookie = await signIn(webui);
        const from = performance.now();
        const { status, text } = await visit(webui, "/", { cookie });
        expect(performance.now() - from).toBeLessThan(IN_TIME_MS);
        expect(status).toBe(200);
        expect([...text.matchAll(/<h2 id="[\w-]+">([^<]+)<\/h2>/g)].map(([, title]) => title)).toEqual(
          SECTIONS,
        );
        const isDatabaseUp = down.database === "up";
        const states = statesIn(text);
        expect(states).toMatchObject({
          writer: down.cluster === "hangs" ? "unknown" : "down",
          database: isDatabaseUp ? "ok" : down.database === "hangs" ? "unknown" : "down",
          "pinning API": down.cluster === "hangs" ? "unknown" : "down",
          billing: isDatabaseUp ? expect.stringMatching(/^(?:ok|attention)$/) : "unknown",
          snapshots: "ok",
          sweep: "attention",
        });
        expect(states["storage API"]).not.toBe("ok");
        // The records of cron's operations need neither.
        expect(text).toContain('<polyline class="line"');
        expect(factsIn(text)).toMatchObject({ complete: "47,856" });
        const nodes = text.slice(text.indexOf('id="nodes"'), text.indexOf('id="last-sweep"'));
        expect(nodes).toContain("storage-5");
        expect(nodes).not.toContain("state ok");
        expect(nodes).toContain(down.cluster === "hangs" ? "no answer in time" : "ECONNREFUSED");
        if (!isDatabaseUp) expect(factsIn(text)).not.toHaveProperty("pinned");
      },
    );

    test("records that are damaged or out of reach are unknown, and those that are not there yet say so", async () => {
      const target = await postgres.createDatabase();
      const directory = await recordsDir();
      const page = async (recordsAt: string | null) => {
        const webui = await startWebui(target, { statusPage: { ...STATUS_PAGE, recordsDir: recordsAt } });
        return (await visit(webui, "/", { cookie: await signIn(webui) })).text;
      };
      const absent = await page(directory);
      expect(statesIn(absent)).toMatchObject({ snapshots: "attention", sweep: "attention" });
      expect(absent).toContain("no sweep has run yet");
      expect(statesIn(await page(null))).toMatchObject({ snapshots: "unknown", sweep: "unknown" });
      const { writeFile } = await import("node:fs/promises");
      for (const name of ["sweep", "sweep-history", "snapshot", "snapshot-history"])
        await writeFile(`${directory}/${name}.json`, "{");
      const damaged = await page(directory);
      expect(statesIn(damaged)).toMatchObject({ snapshots: "unknown", sweep: "unknown" });
      expect(damaged).toContain("the record of what was can&#39;t be read");
      expect(damaged).not.toContain("<polyline");
    });
  },
  { template: migrate },
);
