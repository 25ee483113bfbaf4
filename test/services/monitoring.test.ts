import { onTestFinished, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { openPinningApi } from "../../src/services/pinning-api.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import { BILLING } from "../support/billing.ts";
import { randomBlock, sendBlock, startIngest } from "../support/kubo-ingest.ts";
import { answering, startStandIn } from "../support/kubo-stand-in.ts";
import {
  expressionsOf,
  metricsIn,
  parseMetrics,
  readAlerts,
  readDashboard,
  readMonitoring,
  type Scraped,
} from "../support/monitoring.ts";
import { until } from "../support/migrations.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { pinningSettings, STILL_QUEUE } from "./pins-api.ts";
import { type Serving, startService } from "./serving.ts";
import { webuiSettings } from "./web-api.ts";

type Metrics = ReadonlyMap<string, Scraped>;

/** What each service says at /metrics, by its name. All of its parts are switched on, and each was used once. */
async function scrapeAll(target: PostgresTarget): Promise<ReadonlyMap<string, Metrics>> {
  const limits = { maxConnections: 2, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
  const pinning = await startService(
    (own) =>
      openPinningApi(pinningSettings({ ...target, ...limits }), {
        ...own,
        bridgeSubnets: async () => [],
        queue: STILL_QUEUE,
      }),
    openPool(target, 2),
  );
  onTestFinished(() => pinning.stop());
  const webui = await startService(
    (own) =>
      openStorageService(webuiSettings(target, { billing: BILLING }), {
        ...own,
        openCluster: () => {
          throw new Error("nobody asks the cluster here");
        },
      }),
    openPool(target, 2),
  );
  onTestFinished(() => webui.stop());
  const kubo = await startStandIn(answering(500, {}));
  onTestFinished(() => kubo.close());
  const ingest = await startIngest({ kuboUrl: kubo.url, settings: { noAuth: true } });
  onTestFinished(() => ingest.stop());
  // kubo refuses it, after the ingest has looked for space.
  const { bytes, cid } = randomBlock(100);
  await sendBlock(ingest.url, cid, bytes);
  const scraped = new Map<string, Metrics>();
  for (const { name, url, lines } of [
    { name: "pinning-api", ...pinning },
    { name: "webui", ...webui },
    { name: "ingest", ...ingest },
  ]) {
    await (await fetch(`${url}/health`)).text();
    let metrics: Metrics = new Map();
    await until(`the checks of ${name} have a result`, async () => {
      metrics = parseMetrics(await scrape(lines));
      return metrics.get("fula_health_ok")?.labels.has("check") === true;
    });
    scraped.set(name, metrics);
  }
  return scraped;
}

async function scrape(lines: Serving["lines"]): Promise<string> {
  const at = lines.map((line) => / listens on (\S+) for Prometheus$/.exec(line)?.[1]).find(Boolean);
  return (await fetch(`http://${at ?? ""}/metrics`)).text();
}

/** What an expression names that no service says: a metric, a label, or the value of a label. */
function unknownIn(expression: string, services: ReadonlyMap<string, Metrics>): readonly string[] {
  const all = [...services.values()];
  return metricsIn(expression).flatMap(({ metric, labels }) => {
    // Prometheus adds it itself, and the two labels to all.
    const own = ["job", "instance"];
    const base = metric.replace(/_(?:bucket|sum|count)$/, "");
    const found = all.flatMap((metrics) => {
      const one = metrics.get(metric) ?? metrics.get(base);
      return one === undefined ? [] : [one];
    });
    if (metric !== "up" && found.length === 0) return [metric];
    return labels
      .filter(({ name }) => !own.includes(name))
      .flatMap(({ name, operator, value }) => {
        const values = new Set(found.flatMap((one) => [...(one.labels.get(name) ?? [])]));
        if (values.size === 0) return [`${metric}{${name}}`];
        const isOpen = operator !== "=" || ["route", "status"].includes(name);
        return isOpen || values.has(value) ? [] : [`${metric}{${name}="${value}"}`];
      });
  });
}

/** The rows of the table of metrics on the page, without those of the process. */
async function documented(): Promise<readonly string[]> {
  const page = await readMonitoring("docs/monitoring.md");
  return [...page.matchAll(/^\| `(fula_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]+) \|$/gm)].map(
    ([, name, type, labels = "", services = "", about = ""]) => {
      expect(about.length, name).toBeGreaterThan(10);
      return [name, type, ...quoted(labels), "of", ...quoted(services)].join(" ");
    },
  );
}

function quoted(text: string): readonly string[] {
  return [...text.matchAll(/`([\w-]+)`/g)].map(([, word = ""]) => word).toSorted();
}

describeOnPostgres(
  "what docs/monitoring names, and what the services say at /metrics",
  (postgres) => {
    test("is the same: the table of metrics, the alert rules, the dashboard", async () => {
      const services = await scrapeAll(await postgres.createDatabase());
      const names = new Set([...services.values()].flatMap((metrics) => [...metrics.keys()]));
      const said = [...names]
        .filter((name) => name.startsWith("fula_"))
        .map((name) => {
          const having = [...services].filter(([, metrics]) => metrics.has(name));
          const [first] = having.map(([, metrics]) => metrics.get(name));
          const labels = having.flatMap(([, metrics]) => [...(metrics.get(name)?.labels.keys() ?? [])]);
          // Every series has `service`; `le` is that of a histogram.
          const own = [...new Set(labels)].filter((label) => label !== "service" && label !== "le");
          return [name, first?.type, ...own.toSorted(), "of", ...having.map(([one]) => one).toSorted()].join(
            " ",
          );
        });
      expect((await documented()).toSorted()).toEqual(said.toSorted());

      const page = await readMonitoring("docs/monitoring.md");
      const ofProcess = [...page.matchAll(/`((?:process|nodejs)_\w+)`/g)].map(([, name = ""]) => name);
      expect(ofProcess.length).toBeGreaterThan(2);
      expect([...names]).toEqual(expect.arrayContaining(ofProcess));

      const alerts = (await readAlerts()).map(({ expr }) => expr);
      const expressions = [...alerts, ...expressionsOf(await readDashboard())];
      expect(expressions.flatMap((expression) => unknownIn(expression, services))).toEqual([]);
      expect(expressions.flatMap(metricsIn).length).toBeGreaterThan(40);
      expect(unknownIn('sum by (x) (rate(fula_gone{a="b"}[5m])) > 1 and on (y) z', services)).toEqual([
        "fula_gone",
        "z",
      ]);
      const renamed = 'fula_pin_queue_requests{state="lost"} / fula_pin_queue_requests{status=~"5.."}';
      expect(unknownIn(renamed, services)).toEqual([
        'fula_pin_queue_requests{state="lost"}',
        "fula_pin_queue_requests{status}",
      ]);
    });
  },
  { template: migrate },
);

describe("docs/monitoring/alerts.yml", () => {
  test("has a severity and a sentence for each alert, and the page names each", async () => {
    const page = await readMonitoring("docs/monitoring.md");
    const alerts = await readAlerts();
    for (const { alert, labels, annotations } of alerts) {
      expect(["critical", "warning", "info"], alert).toContain(labels["severity"]);
      expect(annotations["summary"], alert).toMatch(/\S$/);
      expect(annotations["description"], alert).toMatch(/\.$/);
    }
    const named = [...page.matchAll(/^\| `(Fula\w+)` \| (\w+) \|/gm)].map(
      ([, name, severity]) => `${name} ${severity}`,
    );
    expect(named).toEqual(alerts.map(({ alert, labels }) => `${alert} ${labels["severity"]}`));
  });

  test("has for each alert a case in which it fires and one in which it does not (npm run test:alerts runs them)", async () => {
    const { tests } = parse(await readMonitoring("test/alerts/alerts.test.yml")) as {
      readonly tests: readonly {
        readonly alert_rule_test: readonly {
          readonly alertname: string;
          readonly exp_alerts?: readonly unknown[];
        }[];
      }[];
    };
    const cases = tests.flatMap((one) => one.alert_rule_test);
    const withCase = (fires: boolean) =>
      new Set(
        cases
          .filter(({ exp_alerts: expected }) => (expected !== undefined) === fires)
          .map((one) => one.alertname),
      );
    const alerts = new Set((await readAlerts()).map(({ alert }) => alert));
    expect(withCase(true)).toEqual(alerts);
    expect(withCase(false)).toEqual(alerts);
  });
});

describe("docs/monitoring/dashboard.json", () => {
  test("fits every Grafana: it has no id of ours, and its data source is a variable", async () => {
    const dashboard = await readDashboard();
    expect([dashboard.uid, dashboard.id]).toEqual([null, null]);
    const variables = dashboard.templating.list;
    expect(variables.map(({ name, type }) => `${name} ${type}`)).toEqual([
      "datasource datasource",
      "job query",
      "instance query",
    ]);
    const sources = [
      ...variables.filter(({ type }) => type === "query"),
      ...dashboard.panels.filter(({ type }) => type !== "row"),
      ...dashboard.panels.flatMap(({ targets = [] }) => targets),
    ].map(({ datasource }) => datasource?.uid);
    expect(new Set(sources)).toEqual(new Set(["${datasource}"]));
  });

  test("has panels that do not overlap, each with a title and an expression", async () => {
    const { panels } = await readDashboard();
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Set<string>();
    for (const { type, title, targets = [], gridPos } of panels) {
      expect(title).not.toBe("");
      expect(targets.length > 0, title).toBe(type !== "row");
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(taken, title).not.toContain(`${x} ${y}`);
          taken.add(`${x} ${y}`);
        }
    }
  });
});

test("metrics of an expression: strings, groups, ranges and functions are none", () => {
  const names = (expression: string) => metricsIn(expression).map(({ metric }) => metric);
  expect(
    names('sum by (job, le) (rate(a_total{b="c d", e!="f"}[5m])) / on (g) group_left (h) i > bool 20e9'),
  ).toEqual(["a_total", "i"]);
  expect(metricsIn("a{b='x', c=~\"y|z\"}")[0]?.labels).toEqual([
    { name: "b", operator: "=", value: "x" },
    { name: "c", operator: "=~", value: "y|z" },
  ]);
});
