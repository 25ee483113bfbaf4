import type { VerbExit } from "../errors.ts";
import type { World } from "../world.ts";

/** `serve drill-crons`: the billing crons of one master, for a drill that starts this program and feeds its standard input. */
export async function drillCrons({ stdinLines, write, openPool }: World): Promise<VerbExit> {
  const { runCronChild } = await import("../drills/cron-child.ts");
  const die = (): void => void process.kill(process.pid, "SIGKILL");
  await runCronChild({ stdinLines, write, openPool, die });
  return "ok";
}
