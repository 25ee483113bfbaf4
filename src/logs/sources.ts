import { OperatorError } from "../errors.ts";
import { type MasterLayout, NAMES, STORAGE_NAMES } from "../settings/layout.ts";
import { didYouMean } from "../settings/settings.ts";
import { type ReadLine, readCronLine, readJournalLine } from "./log-line.ts";

/** Where one log of a node is. */
export type LogSource =
  | { readonly name: string; readonly kind: "container"; readonly container: string }
  | {
      readonly name: string;
      readonly kind: "file";
      readonly path: string;
      readonly read: ReadLine;
      /** How many rotated files there can be. */
      readonly rotated: number;
    };

/** As pinset/alerts.ts keeps them. */
const ROTATED = 5;

const container = (name: string, of: string): LogSource => ({ name, kind: "container", container: of });

/** Every log that a node of this kind can have. The names are those that `logs` takes. */
export function sourcesOf(kind: "master" | "storage-node", layout: MasterLayout): readonly LogSource[] {
  const journal: LogSource = {
    name: "journal",
    kind: "file",
    path: layout.journal,
    read: readJournalLine,
    rotated: 0,
  };
  const cron = (name: string, path: string): LogSource => ({
    name,
    kind: "file",
    path,
    read: readCronLine,
    rotated: ROTATED,
  });
  if (kind === "storage-node")
    return [
      container("kubo", STORAGE_NAMES.kubo),
      container("ipfs-cluster", STORAGE_NAMES.cluster),
      container("ingest", STORAGE_NAMES.ingest),
      journal,
    ];
  return [
    container("postgres", NAMES.postgres),
    container("kubo", NAMES.kubo),
    container("ipfs-cluster", NAMES.cluster),
    container("pinning-api", NAMES.pinningApi),
    container("storage-api", NAMES.webui),
    container("edge", NAMES.edge),
    container("gateway", NAMES.gateway),
    container("updater", NAMES.updater),
    cron("snapshot", layout.snapshotLog),
    cron("sweep", layout.sweepLog),
    cron("drill", layout.drillLog),
    cron("backup", layout.backupLog),
    cron("alerts", layout.alertLog),
    journal,
  ];
}

/** The sources with these names, or with the names of their containers; all of them without a name. Throws (`usage`) for another word. */
export function chooseSources(sources: readonly LogSource[], names: readonly string[]): readonly LogSource[] {
  const isNamed = (source: LogSource, name: string) =>
    source.name === name || (source.kind === "container" && source.container === name);
  const unknown = names.filter((name) => !sources.some((source) => isNamed(source, name)));
  if (unknown.length > 0) {
    const known = sources.map(({ name }) => name);
    const near = didYouMean(unknown[0] ?? "", known);
    throw new OperatorError({
      exit: "usage",
      what: `This node has no log named ${unknown.map((name) => JSON.stringify(name.slice(0, 40))).join(", ")}.`,
      remedy: `${near === null ? "" : `${near} `}Names are: ${known.join(", ")}.`,
    });
  }
  return names.length === 0
    ? sources
    : sources.filter((source) => names.some((name) => isNamed(source, name)));
}
