import type { SchemaComparison, SchemaDifference } from "../database/definitions.ts";
import type { SchemaEffects, TablePart } from "../database/effects.ts";

/** One thing that is not as the migrations made it. */
interface Fault {
  readonly group: keyof typeof WORDS;
  readonly name: string;
  /** A statement for psql; null if there is no single one. */
  readonly statement: string | null;
  /** What to do without one, in words. */
  readonly advice: string | null;
}

/** What is missing comes first: without it, nothing that needs it works. */
const WORDS = {
  missing: "missing",
  different: "not as the migrations make it",
  invalid: "not valid, so nothing uses it",
  off: "turned off",
  unchecked: "not validated",
} as const;

const SHOWN = 10;
/** So many remedies a line can bear. */
const REMEDIES = 6;
const LISTED = 40;

/** What a drill says of them. */
interface Told {
  readonly summary: string;
  readonly todo: string;
  readonly evidence: Readonly<Record<string, string>>;
}

/** Null if nothing is wrong. `folder`: where the files of the migrations are. */
export function tellFaults(
  effects: SchemaEffects,
  comparison: SchemaComparison | null,
  folder: string,
): Told | null {
  const faults = faultsOf(effects, comparison, folder);
  if (faults.length === 0) return null;
  const groups = (Object.keys(WORDS) as (keyof typeof WORDS)[])
    .map((group) => ({ group, names: faults.filter((one) => one.group === group).map(({ name }) => name) }))
    .filter(({ names }) => names.length > 0);
  const evidence = groups.map(({ group, names }) => [WORDS[group], shorten(names, LISTED)]);
  const details = (comparison?.differences ?? [])
    .slice(0, LISTED)
    .map((one) => [`${one.kind} ${one.name}`, `should be: ${one.expected}; is: ${one.found ?? "not there"}`]);
  return {
    summary: groups.map(({ group, names }) => `${WORDS[group]}: ${shorten(names, SHOWN)}`).join("; "),
    todo: remedyOf(faults),
    evidence: Object.fromEntries([...evidence, ...details]) as Record<string, string>,
  };
}

function faultsOf(
  { missing, invalidIndexes, disabledTriggers, unvalidated }: SchemaEffects,
  comparison: SchemaComparison | null,
  folder: string,
): readonly Fault[] {
  const differences = comparison?.differences ?? [];
  // The comparison knows how to make what both have found.
  const made = new Set(
    differences.filter(({ make }) => make !== null).map(({ name }) => name.split(" on ", 1)[0]),
  );
  const said = new Set(missing.map(({ name }) => name).filter((name) => !made.has(name)));
  const part = (group: Fault["group"], kind: string, statement: (part: TablePart) => string) => {
    return (one: TablePart): Fault => ({
      group,
      name: `${kind} ${one.name} on ${one.table}`,
      statement: statement(one),
      advice: null,
    });
  };
  return [
    ...missing
      .filter(({ name }) => said.has(name))
      .map(({ name, file }): Fault => ({
        group: "missing",
        name: `${name} (${file})`,
        statement: null,
        advice: `create ${name} again as in ${folder}/${file}, or restore a backup`,
      })),
    ...differences
      .filter((one) => one.kind !== "table" || !said.has(one.name))
      .map((one) => faultOf(one, folder)),
    ...invalidIndexes.map(part("invalid", "index", ({ name }) => `REINDEX INDEX CONCURRENTLY ${name}`)),
    ...disabledTriggers.map(
      part("off", "trigger", ({ name, table }) => `ALTER TABLE ${table} ENABLE TRIGGER ${name}`),
    ),
    ...unvalidated.map(
      part(
        "unchecked",
        "constraint",
        ({ name, table }) => `ALTER TABLE ${table} VALIDATE CONSTRAINT ${name}`,
      ),
    ),
  ];
}

function faultOf({ kind, name, make, remake, found }: SchemaDifference, folder: string): Fault {
  const [short = ""] = name.split(/ on |\(/, 1);
  const word = short.split(".").at(-1)?.replaceAll('"', "") ?? "";
  const statement = found === null ? make : remake;
  return {
    group: found === null ? "missing" : "different",
    name: `${kind} ${name}`,
    statement,
    advice: statement === null ? `make the ${kind} ${name} as in: grep -nw '${word}' ${folder}/*.sql` : null,
  };
}

/** Statements that can be copied as they are, then what has none. */
function remedyOf(faults: readonly Fault[]): string {
  const shown = faults.slice(0, REMEDIES);
  const statements = [...new Set(shown.flatMap(({ statement }) => statement ?? []))];
  const advice = [...new Set(shown.flatMap((one) => one.advice ?? []))];
  const hasRows = shown.some(
    ({ group, statement }) => group === "unchecked" || statement?.includes("CONSTRAINT") === true,
  );
  const rest = faults.length - shown.length;
  return [
    "find out who changed it",
    ...(hasRows ? ["correct the rows that break a constraint"] : []),
    ...advice,
    ...(rest === 0 ? [] : [`then run this drill again for the other ${rest}`]),
    ...(statements.length === 0 ? [] : [`with psql: ${statements.map((one) => `${one};`).join(" ")}`]),
  ].join("; ");
}

function shorten(names: readonly string[], most: number): string {
  const rest = names.length > most ? `, and ${names.length - most} more` : "";
  return `${names.slice(0, most).join(", ")}${rest}`;
}
