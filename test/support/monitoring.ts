import { readFile } from "node:fs/promises";
import { parse } from "yaml";

/** A rule of docs/monitoring/alerts.yml. */
export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A file of test/alerts, or of docs/monitoring. */
export async function readMonitoring(path: string): Promise<string> {
  return readFile(new URL(`../../${path}`, import.meta.url), "utf8");
}

/** Every alert rule, in order. */
export async function readAlerts(): Promise<readonly AlertRule[]> {
  const file = parse(await readMonitoring("docs/monitoring/alerts.yml")) as {
    readonly groups: readonly { readonly rules: readonly AlertRule[] }[];
  };
  return file.groups.flatMap(({ rules }) => rules);
}

/** The parts of the dashboard that the tests look at. */
export interface Dashboard {
  readonly uid: string | null;
  readonly id: number | null;
  readonly templating: { readonly list: readonly Variable[] };
  readonly panels: readonly Panel[];
}

interface Variable {
  readonly name: string;
  readonly type: string;
  readonly definition?: string;
  readonly datasource?: { readonly uid: string };
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number };
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

/** The dashboard for Grafana. */
export async function readDashboard(): Promise<Dashboard> {
  return JSON.parse(await readMonitoring("docs/monitoring/dashboard.json")) as Dashboard;
}

/** The expressions of a dashboard, as Prometheus gets them: with values for Grafana's variables. */
export function expressionsOf({ panels }: Dashboard): readonly string[] {
  return panels
    .flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
    .map((expr) => expr.replaceAll("$__rate_interval", "5m").replaceAll(/\$(?:job|instance)\b/g, ".+"));
}

/** A metric in an expression, with what the expression demands of its labels. */
export interface Selected {
  readonly metric: string;
  readonly labels: readonly { readonly name: string; readonly operator: string; readonly value: string }[];
}

/** Words of PromQL that are no metric where no parenthesis follows (Prometheus's manual, "Operators"). */
const WORDS = [
  "by",
  "without",
  "on",
  "ignoring",
  "group_left",
  "group_right",
  "and",
  "or",
  "unless",
  "bool",
  "offset",
];
const GROUPING = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g;
const STRING = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g;

/** The metrics that an expression of PromQL names. It need not be valid: promtool looks at that. */
export function metricsIn(expression: string): readonly Selected[] {
  const strings: string[] = [];
  const plain = expression
    .replaceAll(STRING, (text) => `"${strings.push(text.slice(1, -1)) - 1}"`)
    .replaceAll(GROUPING, " ")
    .replaceAll(/\[[^\]]*\]/g, " ");
  const found: Selected[] = [];
  for (const [, name = "", call, matchers = ""] of plain.matchAll(
    /(?<![\w."])([a-zA-Z_:][\w:]*)\s*(\()?(?:\{([^}]*)\})?/g,
  )) {
    if (call !== undefined || WORDS.includes(name)) continue;
    const labels = [...matchers.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"/g)].map(
      ([, label = "", operator = "", index]) => ({
        name: label,
        operator,
        value: strings[Number(index)] ?? "",
      }),
    );
    found.push({ metric: name, labels });
  }
  return found;
}

/** What a service says at `GET /metrics`: type, label names and their values, by the name of the metric. */
export interface Scraped {
  readonly type: string;
  readonly labels: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Reads the text format of Prometheus. The series of a histogram belong to it, as `NAME_bucket`, `_sum` and `_count`. */
export function parseMetrics(text: string): ReadonlyMap<string, Scraped> {
  const found = new Map<string, { type: string; labels: Map<string, Set<string>> }>();
  for (const [, name = "", type = ""] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    found.set(name, { type, labels: new Map() });
  for (const [, name = "", labels = ""] of text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/gm)) {
    const metric = found.get(name) ?? found.get(name.replace(/_(?:bucket|sum|count)$/, ""));
    if (metric === undefined) throw new Error(`${name} has no type`);
    for (const [, label = "", value = ""] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      metric.labels.set(label, (metric.labels.get(label) ?? new Set()).add(value));
  }
  return found;
}
