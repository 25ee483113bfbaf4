import type { Command } from "commander";
import { CATALOGUE, slugOf } from "../drills/catalogue.ts";
import type { VerbExit } from "../errors.ts";
import { IDENTITY_KEY, PASSPHRASE_KEY } from "../join/from-backup/backup-key.ts";
import { OLD_MASTER_CHECK } from "../join/from-backup/old-machine.ts";
import { PURGEABLE } from "../leave/policy.ts";
import { sourcesOf } from "../logs/sources.ts";
import { MASTER_CHECKS } from "../preflight/checks.ts";
import { MASTER_BASE_DIR, masterLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { ROTATED } from "../settings/rotation.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import { describeCommand, type Suggest } from "../shell/command-line.ts";
import { bashCompletion } from "../shell/completion-bash.ts";
import { fishCompletion } from "../shell/completion-fish.ts";
import { zshCompletion } from "../shell/completion-zsh.ts";
import type { World } from "../world.ts";

const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

/** A shell that can complete commands. */
export type Shell = keyof typeof SHELLS;

/** `completion SHELL`: the script with which a shell completes what `program` describes. */
export function completion(
  shell: Shell,
  program: Command,
  { reporter, version }: Pick<World, "reporter" | "version">,
): VerbExit {
  const lines = SHELLS[shell](describeCommand(program, suggestFor(program)));
  reporter.result({ data: { verb: "completion", version, shell, script: `${lines.join("\n")}\n` }, lines });
  return "ok";
}

/** Values that the program knows and its flags do not say. */
function suggestFor(program: Command): Suggest {
  const keys = (settings: readonly { readonly key: string }[]) => settings.map(({ key }) => `${key}=`);
  const [passphrase, identity] = [{ key: PASSPHRASE_KEY }, { key: IDENTITY_KEY }];
  const checks = MASTER_CHECKS.filter(({ ignorable }) => ignorable).map(({ id }) => id);
  const layout = masterLayout(MASTER_BASE_DIR);
  const logs = [...sourcesOf("master", layout), ...sourcesOf("storage-node", layout)].map(({ name }) => name);
  const known = new Map<string, readonly string[]>([
    ...[
      ["join-as-master", MASTER_SETTINGS] as const,
      ["join-as-storage-node", STORAGE_SETTINGS] as const,
    ].flatMap(([path, settings]) => [
      [`${path} --set`, keys(settings)] as const,
      [`${path} --set-file`, keys(settings)] as const,
      [`${path} --ignore`, checks] as const,
    ]),
    ["join-as-master --ignore", [...checks, OLD_MASTER_CHECK]],
    ["join-as-master --set-file", keys([...MASTER_SETTINGS, identity, passphrase])],
    ["backup create --set-file", keys([passphrase])],
    ["backup verify --set-file", keys([identity, passphrase])],
    ["backup unpack --set-file", keys([identity, passphrase])],
    ["leave --purge", [...Object.keys(PURGEABLE), "all"]],
    ["secret rotate name", Object.keys(ROTATED)],
    ["drill name", CATALOGUE.flatMap((entry) => [entry.id, slugOf(entry)])],
    ["logs service", [...new Set(logs)]],
    ["help command", program.commands.map((command) => command.name())],
  ]);
  return (path, place) => known.get(`${path} ${place}`) ?? [];
}
