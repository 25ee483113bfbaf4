import { OperatorError, type VerbExit } from "../../errors.ts";
import { recordInvite } from "../../federation/invite-records.ts";
import { addressesFor } from "../../federation/invite-signing.ts";
import { parseDuration } from "../../federation/invite.ts";
import {
  type MasterInvite,
  SHARED_SECRETS,
  sharedSettings,
  signMasterInvite,
} from "../../federation/master-invite.ts";
import { readPoolTrust } from "../../federation/pool-trust.ts";
import { type InstalledMaster, openOwnCluster, readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { certificatesInPem } from "../../settings/certificates.ts";
import { baseDirFlag } from "../../settings/layout.ts";
import { isDatabaseElsewhere, postgresBindOf, sslModeOf } from "../../settings/postgres-target.ts";
import { RULES } from "../../settings/rules.ts";
import { wrap } from "../../ui/text.ts";
import type { World } from "../../world.ts";
import type { InviteFlags } from "./invite.ts";

/** 128 bits. */
const ID_BYTES = 16;

/**
 * `invite create --master`: prints the invite of another master (one line), the fingerprint to compare over another
 * channel, and the commands for the two machines. The invite is stored in the database before it is printed.
 */
export async function inviteMaster(flags: InviteFlags, world: World): Promise<VerbExit> {
  const lifetimeMs = parseDuration(flags.expires);
  if (lifetimeMs === null)
    throw usage(
      `--expires is ${JSON.stringify(flags.expires)}; it must be a duration such as 90m, 24h or 7d, at most 90 days.`,
    );
  if (flags.name !== undefined || flags.storageApiUrl !== undefined)
    throw usage("--name and --storage-api-url are for the invites of storage nodes, not with --master.");
  const [given, ...rest] = flags.bootstrap;
  if (rest.length > 0 || (given !== undefined && !RULES.peerMultiaddr.holds(given)))
    throw usage(`With --master, --bootstrap must be one address: ${RULES.peerMultiaddr.requirement}.`);
  const master = await readInstalledMaster(world, flags.baseDir);
  const { values, layout } = master;
  const clusterName = values("CLUSTERNAME");
  if (clusterName === undefined)
    throw new OperatorError({
      exit: "settings",
      what: "CLUSTERNAME is not set.",
      remedy: "Run join-as-master --set CLUSTERNAME=NAME.",
    });
  const database = await databasePlace(world, master);
  const self = await openOwnCluster(world, master).identity();
  const [bootstrap = ""] =
    given === undefined ? addressesFor(self, await world.host.docker.bridgeSubnets()) : [given];
  if (postgresBindOf(values) !== null && values("KUBO_PRIVATE_NETWORK") !== "true") {
    const text = `The invite has a private address of the database (${database.host}). If the masters exchange content in that network, too, kubo connects over it only with KUBO_PRIVATE_NETWORK=true: run join-as-master --set KUBO_PRIVATE_NETWORK=true here, then make a new invite. It has that setting.`;
    world.reporter.listen({ type: "warning", text });
  }
  const key = await world.readSigningKey(layout.signingKey);
  const now = world.host.clock.now();
  const invite = await withMasterDatabase(world, master, "invite", async (pool): Promise<MasterInvite> => {
    const { masters, removed } = await readPoolTrust(pool, clusterName);
    const known = [
      self.id,
      ...(values("MASTER_CLUSTER_PEERIDS")?.split(",") ?? []),
      ...masters.flatMap(({ peer }) => peer?.peerId ?? []),
    ];
    const isGone = (peer: string) => removed.some(({ peerId }) => peerId === peer);
    const made: MasterInvite = {
      id: world.host.random.hex(ID_BYTES),
      clusterName,
      trustedPeers: [...new Set(known)].filter((peer) => !isGone(peer)),
      bootstrap,
      database,
      settings: sharedSettings(values),
      issuedAt: now,
      expiresAt: new Date(now.getTime() + lifetimeMs),
      publicPem: key.publicPem,
    };
    const { id, publicPem: verifyingKey, issuedAt, expiresAt } = made;
    const record = { id, kind: "master", name: null, verifyingKey, issuedAt, expiresAt } as const;
    await recordInvite(pool, clusterName, record);
    return made;
  });
  const token = signMasterInvite(invite, key);
  const { id, expiresAt } = invite;
  const command = commandFor(key.id);
  world.reporter.result({
    data: {
      verb: "invite create",
      kind: "master",
      token,
      fingerprint: key.id,
      id,
      expiresAt: expiresAt.toISOString(),
      command: command.map((line) => line.replace(/ \\$/, "").trim()).join(" "),
    },
    lines: [
      token,
      "",
      `Key fingerprint: ${key.id}`,
      "                 Send it over another channel than the line above.",
      `Valid until:     ${expiresAt.toISOString()}, for one master`,
      `To revoke it:    fula-node invite revoke ${id}${baseDirFlag(layout.baseDir)}`,
      "",
      ...wrap(
        `It contains no secret, and both masters need the same ones. They are in ${layout.envFile}. This puts each into a file:`,
      ),
      "",
      `mkdir -m 700 /root/for-master && (umask 077; for key in ${SHARED_SECRETS.join(" ")}; do`,
      `  sed -n "s/^$key=//p" ${layout.envFile} | sed "s/^\\([\\"']\\)\\(.*\\)\\1\\$/\\2/" > /root/for-master/$key; done)`,
      "",
      ...wrap(
        "Copy that directory to the other machine (scp -r), save the first line there as invite.txt, and run there:",
      ),
      "",
      ...command,
      "",
      ...wrap(
        "Then remove the directory on both machines. The other master is not trusted yet: its join prints the command for that.",
      ),
    ],
  });
  return "ok";
}

function commandFor(fingerprint: string): readonly string[] {
  const words = [
    "npx fula-node join-as-master --provision-writer",
    `--invite @invite.txt --fingerprint ${fingerprint}`,
    ...SHARED_SECRETS.map((key) => `--set-file ${key}=/root/for-master/${key}`),
  ];
  return words.map(
    (line, index) => `${index === 0 ? "" : "  "}${line}${index === words.length - 1 ? "" : " \\"}`,
  );
}

/** Where the other master finds the database, and how it knows that it is this one. */
async function databasePlace(
  { host }: Pick<World, "host">,
  { layout, values }: InstalledMaster,
): Promise<MasterInvite["database"]> {
  const place = {
    port: values("POSTGRES_PORT") ?? "5432",
    name: values("POSTGRES_DB") ?? "pinning_service",
    user: values("POSTGRES_USER") ?? "pinning_user",
  };
  if (isDatabaseElsewhere(values)) {
    const mode = sslModeOf(values("POSTGRES_SSL"));
    const path = values("POSTGRES_SSL_CA");
    const ca =
      path === undefined ? (values("POSTGRES_CA") ?? null) : await readCertificates({ host }, path, path);
    return { ...place, host: values("POSTGRES_HOST") ?? "", ssl: mode === false ? "disable" : mode, ca };
  }
  const address = postgresBindOf(values);
  if (address === null)
    throw new OperatorError({
      exit: "settings",
      what: "No other machine can reach this master's database: POSTGRES_BIND is not set.",
      why: "A second master uses the database of the first one.",
      remedy:
        "Run join-as-master --set POSTGRES_BIND=ADDRESS, with a private IPv4 address of this machine. See docs/second-master.md.",
    });
  const file = `${layout.postgresTlsDir}/ca.pem`;
  const ca = await readCertificates({ host }, file, "the database's CA");
  return { ...place, host: address, ssl: "verify-full", ca };
}

async function readCertificates({ host }: Pick<World, "host">, path: string, name: string): Promise<string> {
  const certificates = certificatesInPem((await host.files.readText(path)) ?? "");
  if (certificates !== null && RULES.certificates.holds(certificates)) return certificates;
  throw new OperatorError({
    exit: "settings",
    what: `There is no certificate of ${name} in ${path}.`,
    remedy: "Run join-as-master again.",
  });
}

function usage(what: string): OperatorError {
  return new OperatorError({ exit: "usage", what });
}
