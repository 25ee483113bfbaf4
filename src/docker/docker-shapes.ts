import type { Container } from "./engine.ts";

/** What is read of `GET /containers/{id}/json` (Engine API, ContainerInspect). */
export interface InspectedContainer {
  readonly Id: string;
  readonly Name: string;
  readonly Image: string;
  readonly RestartCount?: number;
  readonly State: {
    readonly Status: Container["status"];
    readonly ExitCode: number;
    readonly Pid: number;
    readonly StartedAt: string;
    readonly Health?: {
      readonly Status: string;
      readonly Log?: readonly { readonly ExitCode: number; readonly Output: string }[] | null;
    } | null;
  };
  readonly Config: {
    readonly Image: string;
    readonly Tty?: boolean;
    readonly Labels?: Readonly<Record<string, string>> | null;
    readonly Env?: readonly string[] | null;
    readonly Healthcheck?: { readonly Test?: readonly string[] | null } | null;
  };
  readonly HostConfig: { readonly NetworkMode: string };
  readonly Mounts?:
    | readonly {
        readonly Type: string;
        readonly Name?: string;
        readonly Source: string;
        readonly Destination: string;
      }[]
    | null;
  readonly NetworkSettings?: {
    readonly Ports?: Readonly<Record<string, readonly { readonly HostPort: string }[] | null>> | null;
  } | null;
}

/** A container as the product sees it. */
export function toContainer(seen: InspectedContainer): Container {
  const { State: state, Config: config } = seen;
  return {
    id: seen.Id,
    name: seen.Name.replace(/^\//, ""),
    image: config.Image,
    imageId: seen.Image,
    labels: config.Labels ?? {},
    env: Object.fromEntries((config.Env ?? []).map(splitVariable)),
    status: state.Status,
    health: healthOf(seen),
    healthOutput: state.Health?.Log?.findLast(({ ExitCode }) => ExitCode !== 0)?.Output.trim() ?? "",
    exitCode: state.ExitCode,
    restartCount: seen.RestartCount ?? 0,
    startedAt: state.StartedAt,
    pid: state.Pid,
    networkMode: seen.HostConfig.NetworkMode,
    mounts: (seen.Mounts ?? []).map(({ Type, Name, Source, Destination }) => ({
      type: Type,
      name: Name ?? "",
      source: Source,
      destination: Destination,
    })),
    publishedPorts: publishedPorts(seen),
  };
}

/** A container that was never started has a healthcheck, but no health yet. */
function healthOf({ State, Config }: InspectedContainer): Container["health"] {
  const status = State.Health?.Status;
  if (status === "healthy" || status === "unhealthy" || status === "starting") return status;
  const test = Config.Healthcheck?.Test ?? [];
  return test.length > 0 && test[0] !== "NONE" ? "starting" : null;
}

function publishedPorts({ NetworkSettings: settings }: InspectedContainer): readonly number[] {
  const bindings = Object.entries(settings?.Ports ?? {}).filter(([inside]) => inside.endsWith("/tcp"));
  const ports = bindings.flatMap(([, hosts]) => (hosts ?? []).map(({ HostPort }) => Number(HostPort)));
  return [...new Set(ports)].filter((port) => port > 0).sort((a, b) => a - b);
}

function splitVariable(line: string): readonly [string, string] {
  const at = line.indexOf("=");
  return at === -1 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}
