import { randomBytes } from "node:crypto";
import { expect } from "vitest";
import { AS_OPERATOR, FIRST_JOIN, fulaNode, installArtifact } from "./artifact.ts";
import type { BoxSnapshot } from "./box-snapshot.ts";
import { Box, type ExecOptions, type ExecResult } from "./box.ts";
import { eventually } from "./cluster-real.ts";
import { expectExit } from "./master-box.ts";

/** The port at which nodes reach the master's storage API, which itself listens on 127.0.0.1 only, as behind a proxy. */
export const FORWARD_PORT = 8301;
/** Boxes have private addresses, which kubo by default neither dials nor announces. */
export const PRIVATE_NETWORK = ["--set", "KUBO_PRIVATE_NETWORK=true"] as const;
/** The storage API of these tests has no proxy with https in front of it. */
const JOIN = ["join-as-storage-node", "--yes", "--allow-http"] as const;

const FORWARDER = `require("node:net").createServer((client) => {
  const api = require("node:net").connect(3001, "127.0.0.1");
  client.pipe(api).pipe(client);
  client.on("error", () => api.destroy());
  api.on("error", () => client.destroy());
}).listen(${FORWARD_PORT})`;
const CLUSTER = "http://127.0.0.1:9094";

/** What `invite create --json` prints. */
export interface CreatedInvite {
  readonly id: string;
  readonly token: string;
  readonly fingerprint: string;
}

/** Boots the master of a pool on a network of boxes, with a storage API that they can reach. */
export async function bootFederation(network: string): Promise<Box> {
  const master = await Box.boot({ name: "master", image: "docker", network });
  await installArtifact(master);
  await master.writeFile("/opt/fula-master/.env", "KUBO_PRIVATE_NETWORK=true\n", 0o600);
  expectExit(await fulaNode(master, FIRST_JOIN), 0);
  await openStorageApi(master);
  return master;
}

export async function openStorageApi(master: Box): Promise<void> {
  await master.run(["systemd-run", "--unit=forward", "--collect", "node", "-e", FORWARDER]);
  await eventually("the forwarder listens", async () => {
    const { exitCode } = await master.exec(`curl -sf http://127.0.0.1:${FORWARD_PORT}/health`);
    return exitCode === 0;
  });
}

export async function closeStorageApi(master: Box): Promise<void> {
  await master.run("systemctl stop forward");
}

/** Makes an invite. It names the master's present address, unless `more` has a --bootstrap. */
export async function invite(
  master: Box,
  name: string | null,
  more: readonly string[] = [],
): Promise<CreatedInvite> {
  const url = `http://master:${FORWARD_PORT}`;
  const named = name === null ? [] : ["--name", name];
  const args = ["invite", "create", "--json", "--storage-api-url", url, ...named, ...more];
  const result = await fulaNode(master, args);
  expectExit(result, 0);
  return JSON.parse(result.stdout) as CreatedInvite;
}

/** The flags with which a node joins by an invite. */
export function by({ token, fingerprint }: CreatedInvite): readonly string[] {
  return ["--invite", token, "--fingerprint", fingerprint];
}

/** Boots a bare box with the artifact, on a network of boxes. */
export async function bootNode(name: string, network: string): Promise<Box> {
  const box = await Box.boot({ name, image: "docker", network });
  await installArtifact(box);
  return box;
}

export function join(box: Box, args: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  return fulaNode(box, [...JOIN, ...args], options);
}

/** What a second run must not touch: everything that the installer writes, and every container. */
export function watchNode(box: Box): Promise<BoxSnapshot> {
  return box.snapshot(["/opt/fula-storage"]);
}

/** Adds random content to the master's kubo, pins it in the pool, and returns its CID. */
export async function pinContent(master: Box): Promise<string> {
  const cid = await addContent(master);
  expect((await askCluster(master, "POST", `/pins/${cid}`)).status).toBe(200);
  return cid;
}

/** Adds random content, which no other node has, to a box's kubo, and returns its CID. */
export async function addContent(box: Box, bytes = 200_000): Promise<string> {
  const content = randomBytes(Math.ceil(bytes / 2)).toString("hex");
  const { stdout } = await box.run("docker exec -i ipfs_host ipfs add -Q --cid-version=1 --pin=false", {
    input: content,
  });
  return stdout.trim();
}

/** A request to a box's own cluster peer. Returns status and body. */
export async function askCluster(
  box: Box,
  method: "GET" | "POST" | "DELETE",
  path: string,
): Promise<{ readonly status: number; readonly body: string }> {
  const { stdout } = await box.run(
    `curl -s ${AS_OPERATOR} -X ${method} -w '\\n%{http_code}' '${CLUSTER}${path}'`,
  );
  const at = stdout.lastIndexOf("\n");
  return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
}

/** The CIDs of the pinset of a box's own peer. */
export async function pinset(box: Box): Promise<ReadonlySet<string>> {
  const { body } = await askCluster(box, "GET", "/allocations");
  const lines = body.split("\n").filter((line) => line !== "");
  return new Set(lines.map((line) => (JSON.parse(line) as { cid: string }).cid));
}

/** The CIDs that a box's kubo has pinned. */
export async function stored(box: Box): Promise<ReadonlySet<string>> {
  const { stdout } = await box.run("docker exec ipfs_host ipfs pin ls --type=recursive --quiet");
  return new Set(stdout.split("\n").filter((line) => line !== ""));
}

/** Waits until these boxes have the pins and their content. */
export async function untilStored(boxes: readonly Box[], cids: readonly string[]): Promise<void> {
  await eventually(
    "the content is stored",
    async () => {
      const held = await Promise.all(boxes.flatMap((box) => [pinset(box), stored(box)]));
      return held.every((set) => cids.every((cid) => set.has(cid)));
    },
    180_000,
  );
}

/** The names of the peers that a box's own peer knows. */
export async function members(box: Box): Promise<readonly string[]> {
  const { body } = await askCluster(box, "GET", "/peers");
  const lines = body.split("\n").filter((line) => line !== "");
  return lines
    .map((line) => JSON.parse(line) as { peername: string; error: string })
    .filter(({ error }) => error === "")
    .map(({ peername }) => peername)
    .toSorted();
}

export async function peerId(box: Box): Promise<string> {
  return (JSON.parse((await askCluster(box, "GET", "/id")).body) as { id: string }).id;
}
