import { bracketed } from "../settings/address.ts";
import { type Answer, restartPolicyOf } from "./engine-answers.ts";
import type { Engine } from "./engine-client.ts";
import type { ContainerDefinition } from "./engine.ts";

/** How a container was created, without what its image says; null if there is no such container. */
export async function definitionOf(engine: Engine, name: string): Promise<ContainerDefinition | null> {
  const seen = await engine.find("container", (docker) =>
    docker.getContainer(encodeURIComponent(name)).inspect(),
  );
  if (seen === null) return null;
  const image = await engine.find("image", (docker) => docker.getImage(encodeURI(seen.Image)).inspect());
  return toDefinition(seen, image?.Config ?? {});
}

type ImageConfig = Partial<NonNullable<Answer<"image">["Config"]>>;

function toDefinition(seen: Answer<"container">, image: ImageConfig): ContainerDefinition {
  const { Config: config, HostConfig: host, Mounts, NetworkSettings } = seen;
  const isSameEntrypoint = isSame(config.Entrypoint, image.Entrypoint);
  const ofImage = new Set(image.Env ?? []);
  return {
    image: config.Image,
    entrypoint: isSameEntrypoint ? null : (config.Entrypoint ?? []),
    // A changed entry point drops the image's command, so the command is needed with it.
    command: isSameEntrypoint && isSame(config.Cmd, image.Cmd) ? null : (config.Cmd ?? []),
    environment: Object.fromEntries(
      (config.Env ?? []).filter((line) => !ofImage.has(line)).map(splitVariable),
    ),
    user: config.User === image.User ? "" : (config.User ?? ""),
    workingDirectory: config.WorkingDir === image.WorkingDir ? "" : (config.WorkingDir ?? ""),
    networkMode: host.NetworkMode,
    networks: Object.keys(NetworkSettings?.Networks ?? {}).filter(
      (name) => !["host", "none", "bridge"].includes(name),
    ),
    restart: restartPolicyOf(seen),
    mounts: (Mounts ?? []).flatMap(({ Type, Name, Source, Destination, RW }) =>
      Type === "bind" || Type === "volume"
        ? [
            {
              type: Type,
              source: Type === "volume" ? (Name ?? "") : Source,
              target: Destination,
              readOnly: RW === false,
            } as const,
          ]
        : [],
    ),
    ports: Object.entries(host.PortBindings ?? {}).flatMap(([inside, bindings]) =>
      (bindings ?? []).map(({ HostIp = "", HostPort }) => portOf(HostIp, HostPort, inside)),
    ),
    capAdd: host.CapAdd ?? [],
    capDrop: host.CapDrop ?? [],
    securityOptions: host.SecurityOpt ?? [],
    extraHosts: host.ExtraHosts ?? [],
    temporary: Object.entries(host.Tmpfs ?? {}).map(([path, how]) => (how === "" ? path : `${path}:${how}`)),
    readOnly: host.ReadonlyRootfs ?? false,
    privileged: host.Privileged ?? false,
    sharedMemoryBytes: host.ShmSize ?? 0,
  };
}

function isSame(own: readonly string[] | null | undefined, image: readonly string[] | null | undefined) {
  return JSON.stringify(own ?? []) === JSON.stringify(image ?? []);
}

function portOf(address: string, port: string, inside: string): string {
  const host = address === "" ? "" : `${bracketed(address)}:`;
  return `${host}${port}:${inside}`;
}

function splitVariable(line: string): readonly [string, string] {
  const at = line.indexOf("=");
  return at === -1 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}
