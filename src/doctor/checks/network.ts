import { isIP } from "node:net";
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
          remedy: `make it listen on 127.0.0.1 only; until then: iptables -I INPUT -p tcp --dport ${port} ! -i lo -j DROP`,
        },
      ];
    });
  },
};

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
