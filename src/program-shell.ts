import { Argument, type Command, Option } from "commander";
import type { Shell } from "./commands/completion.ts";
import type { SaveFlags } from "./commands/images.ts";
import type { Run } from "./program-verbs.ts";

/** The verb of the images that a machine without internet needs. */
export function addImages(program: Command, run: Run): void {
  program
    .command("images")
    .description("images for a machine without internet")
    .command("save <file>")
    .description(
      "write the images that a node needs to a file, for --images on a machine without internet; pulls those that are not here",
    )
    .addOption(
      new Option(
        "--for <kind>",
        "the kind of node (default: the one that this machine is, else master)",
      ).choices(["master", "storage-node"]),
    )
    .addOption(
      new Option("--arch <name>", "the architecture of the other machine (default: this one's)").choices([
        "amd64",
        "arm64",
      ]),
    )
    .option(
      "--image <name>",
      "also save this image, such as one that the other machine's settings name; repeatable",
      (value: string, previous: readonly string[]) => [...previous, value],
      [],
    )
    .option("--force", "replace the file if it exists", false)
    .option(
      "--base-dir <dir>",
      "directory of this machine's node, whose settings name the images (default: /opt/fula-master or /opt/fula-storage)",
    )
    .option("--json", "print one JSON object instead of text")
    .action((file: string, flags: SaveFlags) =>
      run(async (world) => (await import("./commands/images.ts")).imagesSave(file, flags, world)),
    );
}

/** The verbs that describe the command line itself: to a shell, to people and to programs. */
export function addShell(program: Command, run: Run): void {
  program
    .command("completion")
    .description(
      "print the script with which a shell completes the words of fula-node; `fula-node help completion` says how to install it",
    )
    .addArgument(new Argument("<shell>", "the shell").choices(["bash", "zsh", "fish"]))
    .option("--json", "print one JSON object instead of text")
    .addHelpText("after", INSTALL)
    .action((shell: Shell) =>
      run(
        async (world) => (await import("./commands/completion.ts")).completion(shell, program, world),
        "reads",
      ),
    );
  program
    .helpCommand(false)
    .command("help")
    .description(
      "print the help of the program or of one command; with --json, the whole command line as one object",
    )
    .argument("[command...]", "the command")
    .option("--json", "print one JSON object instead of text")
    .action((words: readonly string[], _flags: unknown, command: Command) => {
      const { json = false } = command.optsWithGlobals<{ readonly json?: boolean }>();
      return run(
        async (world) => (await import("./commands/help.ts")).help(words, json, { program, world }),
        "reads",
      );
    });
}

const INSTALL = `
To install it for this user, in bash:
  mkdir -p ~/.local/share/bash-completion/completions
  fula-node completion bash > ~/.local/share/bash-completion/completions/fula-node

In zsh; ~/.zshrc needs this line
before compinit: fpath+=~/.zfunc
  mkdir -p ~/.zfunc
  fula-node completion zsh > ~/.zfunc/_fula-node

In fish:
  fula-node completion fish > ~/.config/fish/completions/fula-node.fish`;
