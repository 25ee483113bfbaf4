import type { Settings } from "./settings.ts";

/** The pool's secret follows from its name, as upstream has it, unless one is given. */
export function withClusterSecret(settings: Settings, hash: (text: string) => string): Settings {
  const name = settings.get("CLUSTERNAME");
  if (name === undefined || settings.has("CLUSTER_SECRET")) return settings;
  return new Map([...settings, ["CLUSTER_SECRET", { value: hash(name.value), origin: "default" }]]);
}
