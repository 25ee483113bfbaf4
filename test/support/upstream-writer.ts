import { AS_OPERATOR } from "./artifact.ts";
import type { Box } from "./box.ts";
import { until } from "./migrations.ts";

/** One container of a writer, its unit, and how upstream runs it. */
interface Half {
  readonly container: "ipfs_host" | "ipfs_cluster";
  readonly unit: "ipfs.service" | "ipfscluster.service";
  readonly arguments: string;
}

/** The directories of a writer's data, and the files that only the writer itself may write. */
export interface WriterHome {
  readonly kubo: Half;
  readonly cluster: Half;
  readonly directories: readonly string[];
  readonly configs: readonly string[];
}

const DEADLINE_MS = 120_000;
const IMAGES = { kubo: "ipfs/kubo:v0.42.0", cluster: "ipfs/ipfs-cluster:v1.1.6" } as const;
/** Peers with the same secret find each other by multicast on a network, so every box has its own pool. */
const CLUSTER_SETTINGS =
  "-e CLUSTER_REPLICATIONFACTORMIN=1 -e CLUSTER_REPLICATIONFACTORMAX=6 -e CLUSTER_DISABLEREPINNING=false" +
  " -e CLUSTER_CLUSTERNAME=$(hostname)-pool -e CLUSTER_SECRET=$(printf %s-pool $(hostname) | sha256sum | cut -d' ' -f1)" +
  " -e CLUSTER_FOLLOWERMODE=false -e CLUSTER_MONITORPINGINTERVAL=15s";

/** The first master's layout: data on the drives under /uniondrive, settings in a user's home (fula-ota, the installer of the drives). */
export const UNIONDRIVE: WriterHome = home({
  kuboFlags:
    "-e IPFS_PROFILE=server -e IPFS_PATH=/uniondrive/ipfs -v /uniondrive:/uniondrive -v /home/fula/.fula:/internal",
  clusterFlags:
    "-e IPFS_CLUSTER_PATH=/uniondrive/ipfs-cluster -v /uniondrive:/uniondrive -v /home/fula/.fula:/internal",
  directories: ["/uniondrive/ipfs", "/uniondrive/ipfs-cluster", "/home/fula/.fula"],
  kuboDir: "/uniondrive/ipfs",
  clusterDir: "/uniondrive/ipfs-cluster",
});

/** The layout of a writer next to a master (fula-ota, update-scripts/phase-1-setup-writer.sh), in our own default directory. */
export const FULA_WRITER: WriterHome = home({
  kuboFlags: "-e IPFS_PROFILE=server -e IPFS_PATH=/data/ipfs -v /opt/fula-writer/kubo:/data/ipfs",
  clusterFlags: "-e IPFS_CLUSTER_PATH=/data/ipfs-cluster -v /opt/fula-writer/ipfs-cluster:/data/ipfs-cluster",
  directories: ["/opt/fula-writer/kubo", "/opt/fula-writer/ipfs-cluster"],
  kuboDir: "/opt/fula-writer/kubo",
  clusterDir: "/opt/fula-writer/ipfs-cluster",
});

/** Installs upstream's two systemd units, which run the containers in the foreground, and starts them. */
export async function startWriterUnits(box: Box, writer: WriterHome): Promise<void> {
  await makeDirectories(box, writer);
  for (const half of [writer.kubo, writer.cluster]) {
    const after = half.unit === "ipfs.service" ? "docker.service" : "ipfs.service";
    await box.writeFile(
      `/etc/systemd/system/${half.unit}`,
      [
        "[Unit]",
        `After=${after}`,
        `Requires=${after}`,
        "[Service]",
        `ExecStartPre=-/usr/bin/docker rm -f ${half.container}`,
        `ExecStart=/usr/bin/docker run -u root --rm --name ${half.container} --network host ${await expand(box, half.arguments)}`,
        `ExecStop=/usr/bin/docker stop -t 30 ${half.container}`,
        "Restart=always",
        "RestartSec=2s",
        "TimeoutStopSec=60",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
      ].join("\n"),
    );
  }
  await box.run("systemctl daemon-reload && systemctl enable --now ipfs.service ipfscluster.service");
  await untilWriterAnswers(box);
}

/** Starts the same writer as two detached containers, without units. */
export async function startWriterContainers(
  box: Box,
  writer: WriterHome,
  halves: readonly ("kubo" | "cluster")[] = ["kubo", "cluster"],
): Promise<void> {
  await makeDirectories(box, writer);
  for (const half of halves.map((name) => writer[name])) {
    await box.run(
      `docker run -d --restart unless-stopped -u root --name ${half.container} --network host ${half.arguments}`,
    );
  }
  if (halves.length === 2) await untilWriterAnswers(box);
}

/** Adds content to the writer's kubo, pins it through its cluster, and waits until kubo has every pin. */
export async function pinThroughWriter(box: Box, count: number): Promise<void> {
  for (let number = 1; number <= count; number += 1) {
    const added = await box.run(["docker", "exec", "-i", "ipfs_host", "ipfs", "add", "-Q"], {
      input: `pin ${number}\n`,
    });
    // With a password, it wants to be told that plain http on this machine is meant.
    const ctl = ["docker", "exec", "ipfs_cluster", "ipfs-cluster-ctl", "--force-http"];
    // A peer that has just started does not know a peer with free space yet, not even itself.
    await until(
      `pin ${number} is accepted`,
      async () =>
        (await box.exec([...ctl, "pin", "add", "--name", `pin-${number}`, "--no-status", added.stdout]))
          .exitCode === 0,
      DEADLINE_MS,
    );
  }
  const pinned =
    "docker exec ipfs_cluster ipfs-cluster-ctl --force-http status --filter pinned | grep -c PINNED || true";
  await until(
    `${count} pins are pinned`,
    async () => (await box.run(pinned)).stdout === String(count),
    DEADLINE_MS,
  );
}

/** Everything of a writer that an adoption must not change, as text, to compare two moments. */
export async function writerState(box: Box, writer: WriterHome): Promise<Readonly<Record<string, string>>> {
  const units = "ipfs.service ipfscluster.service";
  const shown = "ActiveState,SubState,UnitFileState,MainPID,NRestarts,ActiveEnterTimestamp,ExecStart";
  const questions = {
    kubo: `curl -sf -X POST http://127.0.0.1:5001/api/v0/id | ${field("ID")}`,
    cluster: `curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id | ${field("id")}`,
    pinset: `curl -sf ${AS_OPERATOR} 'http://127.0.0.1:9094/allocations?filter=all' | sort`,
    containers:
      "docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{json .Config.Labels}} {{json .HostConfig.RestartPolicy}}' ipfs_host ipfs_cluster",
    units: `systemctl show --property=${shown} ${units}`,
    files: `sha256sum ${writer.configs.join(" ")} && (stat -c '%n %U %a %Y' ${writer.configs.join(" ")}; stat -c '%n %U %a' ${writer.directories.join(" ")})`,
    unitFiles: `cd /etc/systemd/system && ls -l --time-style=full-iso && cat ${units} 2>/dev/null || true`,
  };
  const answers = await Promise.all(
    Object.entries(questions).map(
      async ([name, command]) => [name, (await box.run(command)).stdout] as const,
    ),
  );
  return Object.fromEntries(answers);
}

/** Waits until both REST APIs answer and the cluster peer can reach its kubo. */
export async function untilWriterAnswers(box: Box): Promise<void> {
  const asks =
    "set -o pipefail; curl -sf -X POST http://127.0.0.1:5001/api/v0/id >/dev/null &&" +
    ` error=$(curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id | ${field("ipfs.error")}) && [ -z "$error" ]`;
  await until(
    `the writer of ${box.name} answers`,
    async () => (await box.exec(asks)).exitCode === 0,
    DEADLINE_MS,
  );
}

/** A filter that prints one field of a JSON object. */
function field(name: string): string {
  return `node -p 'JSON.parse(require("node:fs").readFileSync(0, "utf8")).${name}'`;
}

function home(where: {
  readonly kuboFlags: string;
  readonly clusterFlags: string;
  readonly directories: readonly string[];
  readonly kuboDir: string;
  readonly clusterDir: string;
}): WriterHome {
  return {
    kubo: {
      container: "ipfs_host",
      unit: "ipfs.service",
      arguments: `${where.kuboFlags} ${IMAGES.kubo}`,
    },
    cluster: {
      container: "ipfs_cluster",
      unit: "ipfscluster.service",
      arguments: `${CLUSTER_SETTINGS} ${where.clusterFlags} ${IMAGES.cluster} daemon --upgrade`,
    },
    directories: where.directories,
    configs: [
      `${where.kuboDir}/config`,
      `${where.clusterDir}/service.json`,
      `${where.clusterDir}/identity.json`,
    ],
  };
}

async function makeDirectories(box: Box, { directories }: WriterHome): Promise<void> {
  await box.run(["mkdir", "-p", ...directories]);
}

/** A unit's ExecStart does not support `$(...)`. */
async function expand(box: Box, text: string): Promise<string> {
  return (await box.run(`echo "${text}"`)).stdout;
}
