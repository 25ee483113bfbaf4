import type { Cluster } from "../../src/cluster/client.ts";
import type { PinsetDrillDeps } from "./pinset-drills.ts";

/** Runs at each call of an adapter, with its name: before it and after it. What it throws is thrown instead of the result. */
export interface CallHook {
  readonly before: (name: string) => void;
  readonly after: (name: string) => void;
}

/** The same adapters, of which each call runs the hook. */
export function hooked(deps: PinsetDrillDeps, hook: CallHook): PinsetDrillDeps {
  const around = async (name: string, work: () => unknown): Promise<unknown> => {
    hook.before(name);
    const result = await work();
    hook.after(name);
    return result;
  };
  const wrap = <Part extends object>(
    part: string,
    object: Part,
    names: readonly (keyof Part & string)[],
  ): Part => {
    const wrapped = { ...object } as Record<string, unknown>;
    for (const name of names) {
      const call = object[name] as unknown as (...given: unknown[]) => unknown;
      wrapped[name] = (...given: unknown[]) => around(`${part}.${name}`, () => call.apply(object, given));
    }
    return wrapped as Part;
  };
  const { host } = deps;
  const reads = ["identity", "peers", "metrics", "list", "allocation", "status", "ownStatus"] as const;
  const changes = ["recover", "recoverHere", "pin", "unpin", "acceptsPath"] as const;
  const own = [
    "openBlake3",
    "openWorkspace",
    "openSnapshots",
    "openSnapshotFile",
    "listSnapshotFiles",
  ] as const;
  const others = ["openChannels", "readSigningKey", "readVerifyingKey", "takeLock"] as const;
  return {
    ...wrap("deps", deps, [...own, ...others]),
    host: {
      ...host,
      files: wrap("files", host.files, [
        "readText",
        "stat",
        "list",
        "writeAtomic",
        "makeDirectory",
        "remove",
        "append",
        "space",
      ]),
      http: wrap("http", host.http, ["json"]),
    },
    openCluster: (target): Cluster => wrap("cluster", deps.openCluster(target), [...reads, ...changes]),
    openKubo: async (...given) => {
      const kubo = await deps.openKubo(...given);
      return {
        openPut: (size) => wrap("kubo", kubo.openPut(size), ["store"]),
        close: () => kubo.close(),
      };
    },
  };
}
