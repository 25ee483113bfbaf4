import { isIP } from "node:net";
import type { Listener } from "../../machine/processes.ts";
import { isLoopback } from "../../machine/proxy.ts";
import { multiaddrToUrl } from "../../settings/address.ts";
import { WRITER_PORTS } from "../../settings/conflicts.ts";
import { EDGE_PORTS } from "../../settings/edge.ts";
import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";
import type { Values } from "../../settings/context.ts";
import type { DoctorCheck, Examined } from "../doctor-check.ts";
import type { Observation } from "../finding.ts";

/** Ports of ipfs-cluster that have no password, and that fula-node does not open. */
const UNUSED_WRITER_PORTS = [
  { port: 9095, purpose: "ipfs-cluster's IPFS proxy" },
  { port: 9097, purpose: "ipfs-cluster's pinning service" },
] as const;

/** What only this machine may reach, by its port. */
function privatePorts({
  kind,
  values,
}: Examined): readonly { readonly port: number; readonly purpose: string }[] {
  const named = (key: string, purpose: string) => ({ port: Number(values(key)), purpose });
  return [
    ...WRITER_PORTS.filter(({ address }) => address === "127.0.0.1"),
    ...UNUSED_WRITER_PORTS,
    ...(kind === "master"
      ? [
          ...(isDatabaseElsewhere(values) ? [] : [named("POSTGRES_PORT", "Postgres")]),
          named("PINNING_API_PORT", "the pinning API, with its /admin"),
          named("PINNING_METRICS_PORT", "the metrics of the pinning API"),
          named("WEBUI_METRICS_PORT", "the metrics of the storage API"),
        ]
      : [named("INGEST_METRICS_PORT", "the metrics of the ingest")]),
  ];
}

/** Ports that other machines must not reach, but do. */
export const openPorts: DoctorCheck = {
  id: "open-ports",
  title: "ports without a password that other machines can reach",
  fine: "what only this machine may reach, only this machine reaches",

  async look(examined) {
    if (examined.kind === null) return null;
    const { host, values } = examined;
    const allowed = new Set(["POSTGRES_BIND"].flatMap((key) => values(key) ?? []));
    const listeners = await host.system.listeners();
    return privatePorts(examined).flatMap(({ port, purpose }): readonly Observation[] => {
      const open = listeners.filter(
        (one) => one.port === port && !isLoopback(one.address) && !allowed.has(one.address),
      );
      if (open.length === 0) return [];
      const process = open[0]?.process ?? "an unknown process";
      return [
        {
          severity: "error",
          what: `other machines can reach port ${port}: ${purpose}`,
          evidence: {
            [String(port)]: `${process} listens on ${open.map(({ address }) => address).join(" and ")}`,
          },
          remedy: `make it listen on 127.0.0.1 only, and until then drop what comes in; ${dropCommands(port, open)}`,
        },
      ];
    });
  },
};

/** The processes that listen for a port that Docker publishes. */
const PUBLISHERS: ReadonlySet<string | null> = new Set(["docker-proxy", "dockerd"]);

/**
 * What closes a port for other machines. Packets for a port that Docker publishes do not pass the chain INPUT. With IPv6 they do if
 * Docker's proxy takes them: the table raw comes before both ways. A process on `::` listens on IPv4, too.
 */
function dropCommands(port: number, open: readonly Listener[]): string {
  const isPublished = open.some(({ process }) => PUBLISHERS.has(process));
  const [ipv4, ipv6] = isPublished
    ? [`DOCKER-USER -m conntrack --ctorigdstport ${port}`, `PREROUTING -t raw -p tcp --dport ${port} ! -i lo`]
    : [`INPUT -p tcp --dport ${port} ! -i lo`, `INPUT -p tcp --dport ${port} ! -i lo`];
  return [
    ...(open.some(({ address }) => isIP(address) === 4 || address === "::")
      ? [`iptables -I ${ipv4} -j DROP`]
      : []),
    ...(open.some(({ address }) => isIP(address) === 6) ? [`ip6tables -I ${ipv6} -j DROP`] : []),
  ].join("; ");
}

const UFW = {
  conf: "/etc/ufw/ufw.conf",
  defaults: "/etc/default/ufw",
  rules: "/etc/ufw/user.rules",
} as const;

/** ufw, as far as its files tell, drops what other nodes must reach. */
export const firewall: DoctorCheck = {
  id: "firewall",
  title: "a firewall (ufw) that drops what other machines must reach",
  fine: "ufw drops nothing that other machines must reach",

  async look({ host, kind, values }) {
    if (kind === null) return null;
    const [conf, defaults, rules] = await Promise.all(
      [UFW.conf, UFW.defaults, UFW.rules].map((path) => host.files.readText(path)),
    );
    if (!/^ENABLED=["']?yes/m.test(conf ?? "")) return null;
    if (/^DEFAULT_INPUT_POLICY=["']?ACCEPT/m.test(defaults ?? "")) return [];
    const needed = [
      ...WRITER_PORTS.filter(({ address }) => address === "0.0.0.0"),
      ...(kind === "storage-node" && values("INGEST_BIND") !== "127.0.0.1"
        ? [{ port: Number(values("INGEST_PORT")), purpose: "the verified ingest" }]
        : []),
      ...(kind === "master" && values("PUBLIC_HOST") !== undefined
        ? EDGE_PORTS.map((port) => ({ port, purpose: "the edge" }))
        : []),
    ];
    return needed
      .filter(({ port }) => !isAllowed(rules ?? "", port))
      .map(({ port, purpose }) => ({
        severity: "warning" as const,
        what: `ufw drops port ${port}, which other machines need: ${purpose}`,
        evidence: { [UFW.rules]: `no rule allows ${port}/tcp, and the default is to drop` },
        remedy: `ufw allow ${port}/tcp`,
      }));
  },
};

/** ufw writes each rule of its own as a comment: `### tuple ### allow tcp 4001 0.0.0.0/0 any 0.0.0.0/0 in`. */
function isAllowed(rules: string, port: number): boolean {
  return rules.split("\n").some((line) => {
    const [, action = "", protocol = "", ports = ""] =
      /^### tuple ### (allow|limit)\S* (\S+) (\S+) /.exec(line) ?? [];
    if (action === "" || (protocol !== "tcp" && protocol !== "any")) return false;
    return ports === "any" || ports.split(",").some((one) => covers(one, port));
  });
}

function covers(range: string, port: number): boolean {
  const [from = Number.NaN, to = from] = range.split(":").map(Number);
  return port >= from && port <= to;
}

const DNS_MS = 4_000;

/** The names of other machines in the settings. */
function namesOf(values: Values): readonly (readonly [key: string, name: string])[] {
  const url = (key: string) => {
    const text = values(key) ?? "";
    return URL.canParse(text)
      ? new URL(text).hostname
      : (multiaddrToUrl(text) ?? "").replace(/^.*:\/\/|:\d+$/g, "");
  };
  const bootstrap = (values("MASTER_CLUSTER_BOOTSTRAP") ?? "")
    .split(",")
    .flatMap((one) => /^\/dns[46]?\/([^/]+)\//.exec(one.trim())?.[1] ?? []);
  const all = [
    ["POSTGRES_HOST", values("POSTGRES_HOST") ?? ""],
    ["STORAGE_API_URL", url("STORAGE_API_URL")],
    ["POOL_API", url("POOL_API")],
    ...bootstrap.map((name) => ["MASTER_CLUSTER_BOOTSTRAP", name] as const),
  ] as const;
  return all.filter(
    ([, name]) => name !== "" && isIP(name.replaceAll(/[[\]]/g, "")) === 0 && !isLoopback(name),
  );
}

/** Names of other machines that can't be found. */
export const names: DoctorCheck = {
  id: "dns",
  title: "names of other machines in the settings that DNS does not know",
  fine: "DNS knows every name in the settings",

  async look({ host, kind, values }) {
    if (kind === null) return null;
    const [hosts, resolv] = await Promise.all([
      host.files.readText("/etc/hosts"),
      host.files.readText("/etc/resolv.conf"),
    ]);
    const local = new Set((hosts ?? "").replaceAll(/#.*$/gm, "").split(/\s+/));
    const asked = namesOf(values).filter(([, name]) => !local.has(name));
    const answers = await Promise.all(asked.map(([, name]) => host.system.isInDns(name, DNS_MS)));
    const servers = [...(resolv ?? "").matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, address]) => address);
    return asked.flatMap(([key, name], index): readonly Observation[] => {
      const answer = answers[index];
      if (answer === true) return [];
      const evidence = { [key]: name, "name servers": servers.join(", ") || "none in /etc/resolv.conf" };
      return answer === false
        ? [
            {
              severity: "error",
              what: `DNS does not know ${name} (${key})`,
              evidence,
              remedy: `getent hosts ${name}; correct the name in .env or at its name server`,
            },
          ]
        : [
            {
              severity: servers.length === 0 ? "error" : "unknown",
              what: `the name servers do not answer, asked for ${name} (${key})`,
              evidence,
              remedy: "cat /etc/resolv.conf; resolvectl status",
            },
          ];
    });
  },
};

/** Who has IPv6 tries it first: a name that leads to another machine by IPv6 fails for some clients only. */
export const ipv6: DoctorCheck = {
  id: "ipv6",
  title: "a name of this machine whose IPv6 address is not here",
  fine: "the name of this machine has no IPv6 address that is not here",

  async look({ host, kind, values }) {
    const name = values("PUBLIC_HOST") ?? "";
    if (kind !== "master" || name === "" || isIP(name) !== 0) return null;
    const found = await host.system.ipv6InDns(name, DNS_MS);
    // Whether DNS knows the name is asked where the edge is judged.
    if (found === null) return [];
    const here = host.system.addresses();
    const away = found.filter((address) => !here.includes(address));
    if (away.length === 0) return [];
    return [
      {
        // A proxy may stand in front of the operator's own certificate.
        severity: (values("EDGE_TLS") ?? "acme") === "acme" ? "warning" : "note",
        what: `DNS has the IPv6 address ${away.join(", ")} for ${name}, and this machine does not have it`,
        evidence: { "addresses here": here.filter((one) => isIP(one) === 6).join(", ") || "none of IPv6" },
        remedy: `Give this machine that address, or remove the AAAA record of ${name}`,
      },
    ];
  },
};

/** Ports that Docker publishes on every address although ufw is switched on: Docker's own rules come before those of ufw. */
export const publishedPorts: DoctorCheck = {
  id: "published-ports",
  title: "ports that Docker opens past ufw",
  fine: "Docker opens no port past ufw",

  async look({ host, containers }) {
    if (!/^ENABLED=["']?yes/m.test((await host.files.readText(UFW.conf)) ?? "")) return null;
    const [known, listeners] = await Promise.all([containers(), host.system.listeners()]);
    if (known === null) return null;
    return known.flatMap(({ name, publishedPorts: ports }) =>
      ports.flatMap((port): readonly Observation[] => {
        const open = listeners.filter(
          (one) => one.port === port && PUBLISHERS.has(one.process) && isEverywhere(one.address),
        );
        if (open.length === 0) return [];
        return [
          {
            severity: "warning",
            what: `the container ${name} is open to everybody at port ${port}: Docker's rules come before those of ufw`,
            evidence: { [String(port)]: `published on ${open.map(({ address }) => address).join(" and ")}` },
            remedy: `publish it on 127.0.0.1 (127.0.0.1:${port}:...), or add a rule to the chain DOCKER-USER`,
          },
        ];
      }),
    );
  },
};

function isEverywhere(address: string): boolean {
  return address === "0.0.0.0" || address === "::";
}

const IPTABLES_MS = 5_000;
const DAEMON_FILE = "/etc/docker/daemon.json";
/** What iptables says of a chain that is not there (iptables, libxtables errors), in its two variants. */
const NO_CHAIN =
  /No chain\/target\/match by that name|chain .*(?:does not exist|is incompatible)|no such file/i;

/** Docker's rules, which a firewall that was loaded again may have removed. */
export const dockerRules: DoctorCheck = {
  id: "docker-rules",
  title: "Docker's firewall rules, which a reload of a firewall removed",
  fine: "Docker's firewall rules are in place",

  async look({ host, engine, kind, values }) {
    // Only the database has a published port.
    if (kind !== "master" || isDatabaseElsewhere(values) || (await engine()) === null) return null;
    const [program, daemon] = await Promise.all([
      host.system.which("iptables"),
      host.files.readText(DAEMON_FILE),
    ]);
    if (program === null || /"(?:iptables"\s*:\s*false|firewall-backend"\s*:\s*"nftables)/.test(daemon ?? ""))
      return null;
    const why = await host.system.tryProgram([program, "-w", "2", "-n", "-L", "DOCKER"], {
      timeoutMs: IPTABLES_MS,
    });
    if (why === null) return [];
    if (!NO_CHAIN.test(why))
      return [
        {
          severity: "unknown",
          what: `iptables can't be asked: ${why}`,
          evidence: {},
          remedy: `${program} -n -L DOCKER`,
        },
      ];
    return [
      {
        severity: "error",
        what: "Docker's firewall rules are gone: containers with a port of their own can't be reached",
        evidence: { iptables: why },
        remedy: "systemctl restart docker",
      },
    ];
  },
};
