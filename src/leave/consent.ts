import type { World } from "../world.ts";
import { OperatorError } from "../errors.ts";

/**
 * Has the operator's consent before anything is removed: `--yes` or an answer; for a purge the machine's name,
 * typed or by `--confirm`, since a window of the wrong machine looks like one of the right one. The right name
 * is consent where nothing is left to purge, too: the same command finishes what was cut short. Throws
 * `preflight`, with nothing changed.
 */
export async function settleLeaveConsent(
  { questions, hostname }: World,
  options: { readonly yes: boolean; readonly confirm?: string; readonly isPurging: boolean },
): Promise<void> {
  const { yes, confirm, isPurging } = options;
  if (isPurging) {
    const question = "What is purged is gone for good. Type this machine's name (hostname) to go on";
    const typed = confirm ?? (await questions?.text(question, ""));
    if (typed === hostname) return;
    throw new OperatorError({
      exit: "preflight",
      what: "A purge needs this machine's name, typed.",
      why: typed === undefined ? "There is no terminal to ask on." : "What was typed is not its name.",
      remedy: `Run again with --confirm HOSTNAME; this machine is ${hostname}. Or leave --purge out: everything is kept then.`,
    });
  }
  if (yes || confirm === hostname) return;
  if (questions === null) {
    throw new OperatorError({
      exit: "preflight",
      what: "Leaving requires your confirmation.",
      why: "There is no terminal to ask on.",
      remedy: "Read what --dry-run lists, then run again with --yes.",
    });
  }
  if (await questions.confirm("Remove this, and leave?", false)) return;
  throw new OperatorError({
    exit: "pending",
    what: "Stopped at your word, before the first change.",
    remedy: "Run again to be asked again.",
  });
}
