import { openCluster } from "../../src/cluster/client.ts";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { http } from "../../src/machine/http.ts";
import { serve, type ServeDeps } from "../../src/services/serve.ts";

/** `serve pinning-api` in its own process, with the environment of a container. It prints the service's log. */
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
const not = (): never => {
  throw new Error("the pinning API does not need it");
};
const deps: ServeDeps = {
  http,
  openPool: openPostgresPool,
  openCluster,
  openBlake3: not,
  openKubo: not,
  openStorageApi: not,
  write: (lines) => void process.stdout.write(lines),
  version: "1.2.3",
  stop: stop.signal,
};
await serve("pinning-api", process.env, deps);
process.stdout.write("ended\n");
