import { AS_OPERATOR } from "./artifact.ts";
import { Box } from "./box.ts";
import { eventually } from "./cluster-real.ts";
import { readEnv } from "./master-box.ts";

/** A box that follows a master. Its two containers are started without fula-node. */
export interface Follower {
  readonly box: Box;
  /** The pins of its kubo: `CID` -> `recursive` or `direct`. */
  pins(): Promise<ReadonlyMap<string, string>>;
  stopCluster(): Promise<void>;
  startCluster(): Promise<void>;
}

/** Lets the running kubo of a master use private addresses, which its profile `server` filters, and returns its address. */
export async function openKubo(box: Box): Promise<string> {
  await box.run("docker exec ipfs_host ipfs config --json Swarm.AddrFilters '[]'");
  await box.run("docker restart ipfs_host");
  return `/ip4/${await box.address()}/tcp/4001/p2p/${await kuboId(box, "ipfs_host")}`;
}

/** Waits for the daemon. Without `--api`, ipfs would open the repository itself, as root. */
function kuboId(box: Box, container: string): Promise<string> {
  const command = `docker exec ${container} ipfs --api=/ip4/127.0.0.1/tcp/5001 id --format='<id>'`;
  return eventually("kubo answers", async () => {
    const { exitCode, stdout } = await box.exec(command);
    return exitCode === 0 && stdout.startsWith("12D3") && stdout;
  });
}

/** Boots a follower of a master on its network, and waits until the master counts it as a member. */
export async function bootFollower(
  master: Box,
  options: {
    readonly name: string;
    readonly network: string;
    readonly masterKubo: string;
    /** The name that it gives itself in the cluster; its box's name if left out. */
    readonly peername?: string;
  },
): Promise<Follower> {
  const box = await Box.boot({ name: options.name, image: "docker", network: options.network });
  try {
    await follow(master, box, options);
  } catch (thrown) {
    await box.destroy();
    throw thrown;
  }
  return {
    box,
    pins: async () => {
      const listed = await Promise.all(
        ["recursive", "direct"].map((type) => box.run(`docker exec kubo ipfs pin ls --type=${type}`)),
      );
      const lines = listed.flatMap(({ stdout }) => stdout.split("\n")).filter((line) => line !== "");
      return new Map(lines.map((line) => line.split(" ") as [string, string]));
    },
    stopCluster: async () => void (await box.run("docker stop cluster")),
    startCluster: async () => void (await box.run("docker start cluster")),
  };
}

async function follow(
  master: Box,
  box: Box,
  {
    name,
    masterKubo,
    peername = name,
  }: { readonly name: string; readonly masterKubo: string; readonly peername?: string },
): Promise<void> {
  const { CLUSTER_SECRET } = await readEnv(master);
  const { id } = JSON.parse(
    (await master.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id`)).stdout,
  ) as { id: string };
  await box.run(
    "docker run -d --name kubo --network host -e IPFS_TELEMETRY=off -v /data/kubo:/data/ipfs ipfs/kubo:v0.42.0",
  );
  await kuboId(box, "kubo");
  await box.run(`docker exec kubo ipfs swarm connect ${masterKubo}`);
  const environment = {
    CLUSTER_SECRET,
    CLUSTER_PEERNAME: peername,
    CLUSTER_CRDT_TRUSTEDPEERS: id,
    CLUSTER_PEERADDRESSES: `/ip4/${await master.address()}/tcp/9096/p2p/${id}`,
    CLUSTER_FOLLOWERMODE: "true",
    CLUSTER_MONITORPINGINTERVAL: "2s",
  };
  const lines = Object.entries(environment).map(([key, value]) => `${key}=${value}\n`);
  await box.writeFile("/root/cluster.env", lines.join(""));
  await box.run(
    `docker run -d --name cluster --network host --env-file /root/cluster.env -v /data/cluster:/data/ipfs-cluster ipfs/ipfs-cluster:v1.1.6`,
  );
  await eventually(`${name} is a member`, async () => {
    const { stdout } = await master.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/peers`);
    const names = stdout.split("\n").flatMap((line) => {
      return line === "" ? [] : [(JSON.parse(line) as { readonly peername: string }).peername];
    });
    return names.includes(peername);
  });
}
