import type { Command } from "commander";
import { EXIT_CODES, EXIT_MEANINGS, type ExitName } from "../../src/errors.ts";
import type { AnyStep } from "../../src/engine/step.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { describeSetting, type SettingSpec } from "../../src/settings/settings.ts";
import { STORAGE_SETTINGS } from "../../src/settings/storage.ts";
import { describeProgram } from "../../src/program.ts";
import { FakeMaster } from "./fake-master.ts";
import { prepare } from "./master-boxes.ts";
import { FakeStorage, storageStepsOn } from "./storage-fake.ts";

/** Defaults that depend on the box (commands/settings-source.ts). */
const STORAGE_DEFAULTS = {
  CLUSTER_PEERNAME: "the box's name",
  KUBO_STORAGE_MAX: "four fifths of the free disk",
};

/** Fills the lists between `<!-- NAME -->` and `<!-- /NAME -->` from the code. Throws for a missing place. */
export async function fillReadme(text: string): Promise<string> {
  const lists = {
    steps: listSteps((await prepare(new FakeMaster())).steps),
    "storage-steps": listSteps(await storageStepsOn(new FakeStorage())),
    commands: listCommands(),
    settings: listSettings(MASTER_SETTINGS),
    "storage-settings": listSettings(STORAGE_SETTINGS, STORAGE_DEFAULTS),
    exits: listExits(),
  };
  return Object.entries(lists).reduce((filled, [name, lines]) => {
    const place = new RegExp(`<!-- ${name} -->\n[^]*?<!-- /${name} -->`);
    if (!place.test(filled)) throw new Error(`the README has no place for ${name}`);
    return filled.replace(place, () =>
      [`<!-- ${name} -->`, "", ...lines, "", `<!-- /${name} -->`].join("\n"),
    );
  }, text);
}

function listSteps(steps: readonly AnyStep[]): readonly string[] {
  return steps.map(({ id, touches }, index) => `${index + 1}. **${id}**: ${touches}`);
}

function listCommands(): readonly string[] {
  const program = describeProgram("0", () => Promise.resolve());
  return leavesOf(program).flatMap((command) => ["```", command.helpInformation().trimEnd(), "```", ""]);
}

function leavesOf(command: Command): readonly Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf);
}

function listSettings(
  specs: readonly SettingSpec[],
  looked: Readonly<Record<string, string>> = {},
): readonly string[] {
  const rows = specs.map((spec) => {
    const { key, byDefault, minted, secret } = spec;
    const unset = looked[key] ?? (minted === undefined ? "" : "made once");
    const value = byDefault === undefined ? unset : `\`${byDefault}\``;
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
    "| 130, 143 | | stopped by Ctrl-C or SIGTERM | run again: it goes on from there |",
  ];
}
