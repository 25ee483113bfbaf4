import type { HostReader } from "../host/host.ts";
import { isOurs, NAMES } from "../model/master-layout.ts";

/** What the environments of our own containers know, by key. */
export type ContainerEnv = ReadonlyMap<string, { readonly name: string; readonly value: string }>;

const DATABASE = ["POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_USER"];
const SIGNING = ["JWT_SECRET", "SESSION_SECRET"];

/** What each of our containers can tell, the surest teller first. */
const RECOVERABLE: Readonly<Record<string, readonly string[]>> = {
  [NAMES.postgres]: DATABASE,
  [NAMES.pinningApi]: [...DATABASE, ...SIGNING, "SYSTEM_KEY", "CLUSTER_BASIC_AUTH"],
  [NAMES.webui]: [...DATABASE, ...SIGNING, "SYSTEM_KEY", "ENCRYPTION_KEY", "ETHERSCAN_API_KEY"],
  [NAMES.cluster]: ["CLUSTER_SECRET", "CLUSTER_PEERNAME"],
};

/** Keys that a container knows by another name (compose/webui.yml). */
const ALIASES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  [NAMES.webui]: { SYSTEM_KEY: "PINNING_SYSTEM_KEY" },
};

/** Reads settings that data was made with back from the environments of containers with our label. */
export async function readContainerEnv(host: HostReader): Promise<ContainerEnv> {
  const found = new Map<string, { name: string; value: string }>();
  const ours = (await host.docker.containers()).filter(isOurs);
  for (const [name, keys] of Object.entries(RECOVERABLE)) {
    const env = ours.find((container) => container.name === name)?.env ?? {};
    for (const key of keys) {
      const value = env[ALIASES[name]?.[key] ?? key];
      if (value !== undefined && value !== "" && !found.has(key)) found.set(key, { name, value });
    }
  }
  return found;
}
