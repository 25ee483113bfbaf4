import type { Command } from "commander";
import { DOCTOR_CHECKS } from "../../src/doctor/doctor-checks.ts";
import type { AnyStep } from "../../src/engine/step.ts";
import { EXIT_CODES, EXIT_MEANINGS, type ExitName } from "../../src/errors.ts";
import { PURGEABLE } from "../../src/leave/policy.ts";
import { MASTER_CHECKS } from "../../src/preflight/checks.ts";
import { describeProgram } from "../../src/program.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { describeSetting, type SettingSpec } from "../../src/settings/settings.ts";
import { STORAGE_SETTINGS } from "../../src/settings/storage.ts";
import { BENCHES } from "../bench/catalogue.ts";
import { listResults, readResults } from "../bench/results.ts";
import { FakeMaster } from "./fake-master.ts";
import { prepare } from "./master-boxes.ts";
import { GENERATED } from "./pages.ts";
import { FakeStorage, storageStepsOn } from "./storage-fake.ts";

/** Defaults that depend on the box (join/settings-source.ts). */
const STORAGE_DEFAULTS = {
  CLUSTER_PEERNAME: "the box's name",
  KUBO_STORAGE_MAX: "four fifths of the free disk",
};

/**
 * Fills the places `<!-- NAME -->` ... `<!-- /NAME -->` of these pages (text by path) from the code, and returns all pages.
 * Throws if a list does not have exactly one place, and if there is no list for a place.
 */
export async function fillPages(pages: ReadonlyMap<string, string>): Promise<ReadonlyMap<string, string>> {
  const lists = new Map<string, readonly string[]>([
    ["steps", listSteps((await prepare(new FakeMaster())).steps)],
    ["storage-steps", listSteps(await storageStepsOn(new FakeStorage()))],
    ["commands", listCommands()],
    ["settings", listSettings(MASTER_SETTINGS)],
    ["storage-settings", listSettings(STORAGE_SETTINGS, STORAGE_DEFAULTS)],
    ["exits", listExits()],
    ["checks", listChecks()],
    ["doctor-checks", listDoctorChecks()],
    ["purge", listPurgeable()],
    ["benchmarks", listResults(BENCHES, readResults())],
  ]);
  const filled: string[] = [];
  const result = new Map(
    [...pages].map(([path, text]) => [
      path,
      text.replace(GENERATED, (_, name: string) => {
        const lines = lists.get(name);
        if (lines === undefined)
          throw new Error(`${path} has a place for ${name}, and there is no list for it`);
        filled.push(name);
        return [`<!-- ${name} -->`, "", ...lines, "", `<!-- /${name} -->`].join("\n");
      }),
    ]),
  );
  const misplaced = [...lists.keys()].filter((name) => filled.filter((one) => one === name).length !== 1);
  if (misplaced.length > 0) throw new Error(`not on exactly one page: ${misplaced.join(", ")}`);
  return result;
}

function listSteps(steps: readonly AnyStep[]): readonly string[] {
  return steps.map(({ id, touches }, index) => `${index + 1}. **${id}**: ${touches}`);
}

function listCommands(): readonly string[] {
  const program = describeProgram("0", () => Promise.resolve());
  return leavesOf(program).flatMap((command, index) => [
    ...(index === 0 ? [] : [""]),
    `## ${nameOf(command)}`,
    "",
    "```text",
    command.helpInformation().trimEnd(),
    "```",
  ]);
}

/** `snapshot take`: the words that follow the program's name. */
function nameOf(command: Command): string {
  const parent = command.parent;
  return parent?.parent == null ? command.name() : `${nameOf(parent)} ${command.name()}`;
}

/** Not those that `--help` does not show: only the program itself uses them. */
function leavesOf(command: Command): readonly Command[] {
  if (command.commands.length === 0) return [command];
  const shown = command.createHelp().visibleCommands(command);
  return command.commands.filter((one) => shown.includes(one)).flatMap(leavesOf);
}

function listSettings(
  specs: readonly SettingSpec[],
  looked: Readonly<Record<string, string>> = {},
): readonly string[] {
  const rows = specs.map((spec) => {
    const { key, byDefault, bound, generated, secret } = spec;
    const unset = looked[key] ?? (generated === undefined ? "" : "generated once");
    const value = byDefault === undefined ? unset : `\`${byDefault}\`${bound === true ? " (saved)" : ""}`;
    return `| \`${key}\` | ${describeSetting(spec)}${secret === true ? " (secret)" : ""} | ${value} |`;
  });
  return ["| key | what for | default |", "|---|---|---|", ...rows];
}

function listExits(): readonly string[] {
  const rows = (Object.entries(EXIT_CODES) as [ExitName, number][]).map(([name, code]) => {
    const [meaning, remedy] = EXIT_MEANINGS[name];
    return `| ${code} | ${name} | ${meaning} | ${remedy} |`;
  });
  return [
    "| code | name | what it means | what to do |",
    "|---|---|---|---|",
    ...rows,
    "| 130, 143 | | stopped by Ctrl-C or SIGTERM; `logs -f` ends with 0, since that is its usual end | run again: it continues from there |",
    "| 141 | | the output was closed (`\\| head`) and the verb only reads | nothing |",
  ];
}

function listChecks(): readonly string[] {
  const rows = MASTER_CHECKS.map(
    ({ id, title, ignorable }) => `| \`${id}\` | ${title} | ${ignorable ? "yes" : "no"} |`,
  );
  return ["| check | what it looks at | `--ignore` possible |", "|---|---|---|", ...rows];
}

function listDoctorChecks(): readonly string[] {
  const rows = DOCTOR_CHECKS.map(({ id, title }) => `| \`${id}\` | ${title} |`);
  return ["| check | what it finds |", "|---|---|", ...rows];
}

function listPurgeable(): readonly string[] {
  const rows = Object.entries(PURGEABLE).map(([part, about]) => `| \`${part}\` | ${about} |`);
  return ["| WHAT | removes |", "|---|---|", ...rows];
}
