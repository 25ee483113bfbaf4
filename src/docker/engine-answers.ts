import * as z from "zod";

const LABELS = z.record(z.string(), z.string()).nullish();
const VOLUME = z.object({
  Name: z.string(),
  Labels: LABELS,
  Mountpoint: z.string(),
  Driver: z.string().nullish(),
  Options: z.record(z.string(), z.string()).nullish(),
});

/** What a container runs, in its own and in its image's configuration. */
const PROCESS = {
  Entrypoint: z.array(z.string()).nullish(),
  Cmd: z.array(z.string()).nullish(),
  User: z.string().optional(),
  WorkingDir: z.string().optional(),
};

/** The parts of the engine's answers that we use (Engine API 1.44). Lists and labels may be null. */
const ANSWERS = {
  /** GET /version. */
  version: z.object({
    Version: z.string(),
    ApiVersion: z.string(),
    MinAPIVersion: z.string(),
    Arch: z.string().nullish(),
  }),
  /** GET /info. */
  info: z.object({ DockerRootDir: z.string().optional(), SecurityOptions: z.array(z.string()).nullish() }),
  /** GET /containers/json. */
  containers: z.array(z.object({ Id: z.string(), Names: z.array(z.string()).nullish(), Labels: LABELS })),
  /** GET /containers/{id}/json. */
  container: z.object({
    Id: z.string(),
    Name: z.string(),
    Image: z.string(),
    RestartCount: z.number().optional(),
    State: z.object({
      Status: z.enum(["created", "running", "paused", "restarting", "removing", "exited", "dead"]),
      ExitCode: z.number(),
      OOMKilled: z.boolean().optional(),
      Pid: z.number(),
      StartedAt: z.string(),
      Health: z
        .object({
          Status: z.string(),
          Log: z.array(z.object({ ExitCode: z.number(), Output: z.string() })).nullish(),
        })
        .nullish(),
    }),
    Config: z.object({
      Image: z.string(),
      Tty: z.boolean().optional(),
      Labels: LABELS,
      Env: z.array(z.string()).nullish(),
      Healthcheck: z.object({ Test: z.array(z.string()).nullish() }).nullish(),
      ...PROCESS,
    }),
    HostConfig: z.object({
      NetworkMode: z.string(),
      RestartPolicy: z.object({ Name: z.string(), MaximumRetryCount: z.number().optional() }).nullish(),
      PortBindings: z
        .record(
          z.string(),
          z.array(z.object({ HostIp: z.string().optional(), HostPort: z.string() })).nullish(),
        )
        .nullish(),
      CapAdd: z.array(z.string()).nullish(),
      CapDrop: z.array(z.string()).nullish(),
      SecurityOpt: z.array(z.string()).nullish(),
      ExtraHosts: z.array(z.string()).nullish(),
      Tmpfs: z.record(z.string(), z.string()).nullish(),
      ReadonlyRootfs: z.boolean().optional(),
      Privileged: z.boolean().optional(),
      ShmSize: z.number().optional(),
    }),
    Mounts: z
      .array(
        z.object({
          Type: z.string(),
          Name: z.string().optional(),
          Source: z.string(),
          Destination: z.string(),
          RW: z.boolean().optional(),
        }),
      )
      .nullish(),
    NetworkSettings: z
      .object({
        Ports: z.record(z.string(), z.array(z.object({ HostPort: z.string() })).nullable()).nullish(),
        Networks: z.record(z.string(), z.unknown()).nullish(),
      })
      .nullish(),
  }),
  /** GET /containers/{id}/logs; null for an empty log. */
  log: z.instanceof(Buffer).nullable(),
  /** GET /images/{name}/json. */
  image: z.object({
    Id: z.string(),
    Architecture: z.string().nullish(),
    Size: z.number().nullish(),
    Config: z.object({ Labels: LABELS, Env: z.array(z.string()).nullish(), ...PROCESS }).nullish(),
    // Of the overlay2 driver; containerd's image store has none.
    GraphDriver: z.object({ Data: z.record(z.string(), z.string()).nullish() }).nullish(),
  }),
  /** GET /images/json. */
  images: z.array(z.object({ Id: z.string(), RepoTags: z.array(z.string()).nullish(), Labels: LABELS })),
  /** GET /volumes/{name}. */
  volume: VOLUME,
  /** GET /volumes. */
  volumes: z.object({ Volumes: z.array(VOLUME).nullish() }),
  /** GET /networks. */
  networks: z.array(
    z.object({
      Name: z.string(),
      Labels: LABELS,
      IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().optional() })).nullish() }).nullish(),
    }),
  ),
  /** A line of the stream of a pull, a build or a load. */
  progress: z.object({
    status: z.string().optional(),
    id: z.string().optional(),
    stream: z.string().optional(),
    error: z.string().optional(),
    errorDetail: z.object({ message: z.string().optional() }).optional(),
    progressDetail: z.object({ current: z.number().optional(), total: z.number().optional() }).nullish(),
  }),
};

/** The names of the answers that we read. */
export type AnswerName = keyof typeof ANSWERS;

/** The part of an answer that we use. */
export type Answer<Name extends AnswerName> = z.infer<(typeof ANSWERS)[Name]>;

/** Checks an answer of the engine. `why` says what is wrong with it. */
export function readAnswer<Name extends AnswerName>(
  name: Name,
  answer: unknown,
): { readonly data: Answer<Name> } | { readonly why: string } {
  const result = ANSWERS[name].safeParse(answer);
  if (result.success) return { data: result.data as Answer<Name> };
  if (Buffer.isBuffer(answer)) return { why: "the answer is not JSON" };
  const issues = result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  return { why: `in the answer (${name}) ${issues.join("; ")}` };
}

/**
 * What libnetwork reports if its chains are gone, with iptables (`No chain/target/match by that name`, and `does a
 * matching rule exist` from iptables-nft) or with the kernel's own names of them.
 */
const LOST_CHAINS = [
  /No chain\/target\/match by that name/i,
  /Chain '?DOCKER[A-Z0-9-]*'? does not exist/i,
  /iptables failed: .*\bDOCKER/is,
  /Failed to program .*(?:FILTER|NAT) chain/i,
  /unable to enable (?:ACCEPT|DNAT|SKIP DNAT|DROP|MASQUERADE) .*rule/i,
  /nftables?.*docker.*No such file or directory/is,
];

/** What to do if the network of the engine needs a restart; null if the engine's words say something else. */
export function remedyForNetwork(why: string): string | null {
  const restart =
    "Restart Docker: systemctl restart docker. Then run again. Containers with a restart policy start by themselves.";
  if (LOST_CHAINS.some((pattern) => pattern.test(why)))
    return `The firewall was loaded again, which removed Docker's rules. ${restart}`;
  // A port of another program is found by the preflight.
  if (/port is already allocated/i.test(why))
    return `If a container has this port (docker ps), stop it. If none has, Docker holds it since a crash or a loss of power. ${restart}`;
  return null;
}

/** A container's restart policy, as Compose writes it. */
export function restartPolicyOf({ HostConfig: host }: Answer<"container">): string {
  const { Name: name = "", MaximumRetryCount: most = 0 } = host.RestartPolicy ?? {};
  if (name === "") return "no";
  return name === "on-failure" && most > 0 ? `${name}:${most}` : name;
}
