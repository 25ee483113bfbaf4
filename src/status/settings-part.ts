import type { HostReader } from "../host.ts";
import { baseDirFlag, type MasterLayout } from "../settings/layout.ts";
import { judgeSettings, type StepsSeen } from "./judge-steps.ts";
import { type Judged, REPAIR_MASTER } from "./part.ts";

/**
 * What a join would change, a change of a secret that was interrupted, and a program for alarms that can't be run: a join
 * would refuse it, and no alarm would leave.
 */
export async function lookAtSettings(
  { files }: Pick<HostReader, "files">,
  layout: MasterLayout,
  seen: StepsSeen,
  alertCommand: string | undefined,
): Promise<Judged> {
  const judged = judgeSettings(seen, REPAIR_MASTER);
  const text = await files.readText(layout.rotation);
  if (text !== null) {
    const { parseRotation, unfinishedRotation } = await import("../settings/rotation.ts");
    const rotation = parseRotation(text, layout.rotation);
    if (rotation !== null) {
      const { what, remedy = null } = unfinishedRotation(rotation, baseDirFlag(layout.baseDir));
      return { ...judged, state: "attention", summary: what, todo: remedy };
    }
  }
  if (alertCommand === undefined) return judged;
  const { refusalOf } = await import("../pinset/alert-command.ts");
  const whyNot = await refusalOf(files, alertCommand);
  if (whyNot === null) return judged;
  return {
    ...judged,
    state: "attention",
    summary: `ALERT_COMMAND can't be run: ${whyNot}`,
    todo: "repair that file: executable, root's, and writable for root alone; its directories too",
  };
}
