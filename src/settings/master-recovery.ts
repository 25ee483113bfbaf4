import { NAMES } from "./master-layout.ts";
import type { Recoverable } from "./recovery.ts";

const DATABASE = ["POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_USER"];
const SIGNING = ["JWT_SECRET", "SESSION_SECRET"];

/** What a master's containers tell of its settings (compose/*.yml), the surest teller first. */
export const MASTER_RECOVERABLE: readonly Recoverable[] = [
  ...DATABASE.map((key) => ({ key, container: NAMES.postgres })),
  ...[...DATABASE, ...SIGNING, "SYSTEM_KEY", "CLUSTER_BASIC_AUTH"].map((key) => ({
    key,
    container: NAMES.pinningApi,
  })),
  ...[...DATABASE, ...SIGNING, "ENCRYPTION_KEY", "ETHERSCAN_API_KEY"].map((key) => ({
    key,
    container: NAMES.webui,
  })),
  { key: "SYSTEM_KEY", container: NAMES.webui, knownAs: "PINNING_SYSTEM_KEY" },
  ...["CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({ key, container: NAMES.cluster })),
];
