import { expect } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "./artifact.ts";
import { Box, requireBoxes, type ExecResult } from "./box.ts";
import type { BoxSnapshot } from "./box-snapshot.ts";

/** Why box tests are skipped here; undefined if they run. If CI is set, it throws instead. */
export const skipped = await requireBoxes();
if (skipped !== undefined) console.warn(`skipped: boxes cannot run here: ${skipped}`);

/** What a no-op must not touch: everything that the installer writes, and every container. kubo and ipfs-cluster write their own data. */
export const WATCHED = [
  "/opt/fula-master",
  "/opt/fula-writer/docker-compose.yml",
  "/opt/fula-writer/kubo-init.sh",
  "/opt/fula-writer/cluster-start.sh",
  "/etc/cron.d",
] as const;

/** Boots a box and makes it the first master of a new pool. */
export async function bootMaster(name: string): Promise<Box> {
  const box = await Box.boot({ name, image: "docker" });
  await installArtifact(box);
  expectExit(await fulaNode(box, FIRST_JOIN), 0);
  return box;
}

/** Runs join-as-master again without settings, as an operator does for a repair. */
export function rejoin(box: Box, args: readonly string[] = []): Promise<ExecResult> {
  return fulaNode(box, ["join-as-master", "--yes", ...args]);
}

/** What the installer created, and every container, to compare two moments. */
export function watch(box: Box): Promise<BoxSnapshot> {
  return box.snapshot(WATCHED);
}

/** Fails with the whole output if the exit code is not the expected one. */
export function expectExit(result: ExecResult, exitCode: number): void {
  expect(result.exitCode, `${result.stdout}\n${result.stderr}`).toBe(exitCode);
}

/** The stderr of a run on one line, since line breaks depend on the terminal's width. */
export function stderrOf({ stderr }: ExecResult): string {
  return stderr.replaceAll(/\s+/g, " ");
}

/** The keys and values of the master's `.env`. */
export async function readEnv(box: Box): Promise<Readonly<Record<string, string>>> {
  const text = await box.readFile("/opt/fula-master/.env");
  const lines = text.split("\n").filter((line) => /^[A-Z]/.test(line));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
}

/** The REST API of a master's own ipfs-cluster, with its password in the URL. */
export async function clusterUrl(box: Box): Promise<string> {
  const { CLUSTER_BASIC_AUTH: auth } = await readEnv(box);
  return `http://${auth === undefined ? "" : `${auth}@`}127.0.0.1:9094`;
}

/** One change in `--dry-run --json` and in the journal. */
export interface ChangeRecord {
  readonly step: string;
  readonly change: Readonly<Record<string, unknown>>;
}

/** The changes of a plan printed by `--dry-run --json`. */
export function plannedChanges(stdout: string): readonly ChangeRecord[] {
  const { plan } = JSON.parse(stdout) as { plan: { step: string; changes: Record<string, unknown>[] }[] };
  return plan.flatMap(({ step, changes }) => changes.map((change) => ({ step, change })));
}

/** The finished changes in the journal, oldest first. */
export async function journaledChanges(box: Box): Promise<readonly ChangeRecord[]> {
  const lines = (await box.readFile("/opt/fula-master/journal.ndjson")).trim().split("\n");
  return lines
    .map((line) => JSON.parse(line) as ChangeRecord & { phase: string })
    .filter(({ phase }) => phase === "done")
    .map(({ step, change }) => ({ step, change }));
}

/** Runs SQL in a master's database. Returns the rows, one per line, with | between columns. */
export async function psql(box: Box, sql: string, container = "postgres-pinning"): Promise<string> {
  const program = ["docker", "exec", "-i", container, "psql"];
  const flags = ["-U", "pinning_user", "-d", "pinning_service", "-v", "ON_ERROR_STOP=1", "-qtA"];
  return (await box.run([...program, ...flags], { input: sql })).stdout;
}

/** The containers of a joined master with their states, such as `running healthy`. */
export async function health(box: Box): Promise<Readonly<Record<string, string>>> {
  const format = "{{.Name}}\t{{.State.Status}}{{if .State.Health}} {{.State.Health.Status}}{{end}}";
  const { stdout } = await box.run(`docker ps -aq | xargs docker inspect --format '${format}'`);
  return Object.fromEntries(
    stdout.split("\n").map((line) => line.replace(/^\//, "").split("\t")) as [string, string][],
  );
}

/** The result of `health` for every joined master with its own writer. */
export const ALL_HEALTHY = {
  ipfs_host: "running healthy",
  ipfs_cluster: "running healthy",
  "postgres-pinning": "running healthy",
  "fula-pinning-api": "running healthy",
  "fula-pinning-webui": "running healthy",
};
