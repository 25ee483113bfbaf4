import type { World } from "../world.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { PreflightProblem } from "../preflight/check.ts";

/**
 * Tells the warnings of a preflight, and puts its failures together with what is wrong with the settings, so
 * that one run names all. Throws `preflight` or `settings`.
 */
export function reportPreflight(
  { reporter }: World,
  found: readonly PreflightProblem[],
  problems: readonly Problem[],
): void {
  for (const { severity, check, what, remedy } of found) {
    if (severity === "warning") reporter.listen({ type: "warning", text: `${check}: ${what} ${remedy}` });
  }
  refuse(
    found.filter(({ severity }) => severity === "failure"),
    problems,
  );
}

function refuse(failures: readonly PreflightProblem[], problems: readonly Problem[]): void {
  if (failures.length + problems.length === 0) return;
  const listed = failures.map(({ check, what, why, remedy }) => ({
    subject: check,
    what: why === undefined ? what : `${what} ${why}`,
    remedy,
  }));
  const count = failures.length + problems.length;
  throw new OperatorError({
    exit: failures.length > 0 ? "preflight" : "settings",
    what: `${count === 1 ? "One thing is" : `${count} things are`} in the way.`,
    remedy: "Mend what is listed, then run again.",
    problems: [...listed, ...problems],
  });
}
