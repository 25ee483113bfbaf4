import type { ServiceName } from "../services/serve.ts";
import type { World } from "../world.ts";
import type { VerbExit } from "../errors.ts";

/** `serve NAME`: runs one service until it receives a signal. The containers run this. */
export async function serve(name: ServiceName, world: World): Promise<VerbExit> {
  const { environment, host, write } = world;
  const { serve: run } = await import("../services/serve.ts");
  await run(name, environment, { ...world, http: host.http, write });
  return "ok";
}

/** `serve drill-crons`: the billing crons of one master, for a drill that starts this program and feeds its standard input. */
export async function serveDrillCrons({ stdinLines, write, openPool }: World): Promise<VerbExit> {
  const { runCronChild } = await import("../drills/scratch/cron-child.ts");
  const die = (): void => void process.kill(process.pid, "SIGKILL");
  await runCronChild({ stdinLines, write, openPool, die });
  return "ok";
}
