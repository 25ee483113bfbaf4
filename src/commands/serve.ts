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
