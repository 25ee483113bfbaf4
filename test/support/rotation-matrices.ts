import { openText } from "../../src/accounts/api-key.ts";
import type { SecretName } from "../../src/settings/rotation.ts";
import { FIRST_JOIN, fulaNode } from "./artifact.ts";
import type { Box } from "./box.ts";
import { anotherSnapshot, bootDocker, JOURNAL, untilHealthy } from "./crash-matrices.ts";
import type { CrashMatrix } from "./crash-matrix.ts";
import { type EndState, endStateOf } from "./end-state.ts";
import { expectExit, psql, readEnv } from "./master-box.ts";

/** A master with an account and its key, in which what is encrypted shows. */
async function bootWithAccount(): Promise<Box> {
  const box = await bootDocker();
  expectExit(await fulaNode(box, FIRST_JOIN), 0);
  expectExit(await fulaNode(box, ["user", "create", "--email", "a@example.org"]), 0);
  expectExit(await fulaNode(box, ["user", "token", "--email", "a@example.org"]), 0);
  return box;
}

/** A rotation that is under way is finished. One that had ended is not begun again: then a join has nothing to do. */
async function repairOf(box: Box, command: readonly string[]): Promise<readonly string[]> {
  const isUnderWay = (await box.exec("test -e /opt/fula-master/rotation.json")).exitCode === 0;
  if (isUnderWay) return command;
  // The last line may be cut off.
  const journal = await box.readFile(JOURNAL);
  const [last = "{}"] = journal.split("\n").slice(0, -1).slice(-1);
  const { change } = JSON.parse(last) as { readonly change: { readonly kind: string } };
  return change.kind === "forget-old-secret" ? ["join-as-master", "--yes"] : command;
}

/** The end state, and whether each value in the database opens with the key that is saved. */
async function stateWithRows(box: Box): Promise<EndState> {
  const state = await endStateOf(box);
  const isUp = (await box.exec("docker exec postgres-pinning pg_isready -q -h 127.0.0.1")).exitCode === 0;
  if (!isUp) return state;
  const { ENCRYPTION_KEY: key = "" } = await readEnv(box);
  const sql =
    "SELECT encrypted_email FROM webui_users UNION ALL SELECT encrypted_key FROM api_keys WHERE is_deleted = 0";
  const sealed = (await psql(box, sql)).split("\n").filter((line) => line !== "");
  const open = sealed.filter((text) => openText(text, key) !== null).length;
  return { ...state, things: { ...state.things, "encrypted values": `${open} of ${sealed.length} open` } };
}

/** A secret of a master is changed. */
export function rotationMatrix(secret: SecretName): CrashMatrix {
  const command = ["secret", "rotate", secret, "--yes"];
  return {
    name: `secret rotate ${secret}`,
    prepare: bootWithAccount,
    ready: untilHealthy,
    command,
    again: (box) => repairOf(box, command),
    ...(secret === "snapshot-key" ? { allowed: anotherSnapshot(2) } : {}),
    journal: JOURNAL,
    endState: stateWithRows,
  };
}
