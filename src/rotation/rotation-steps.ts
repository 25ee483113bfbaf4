import type { AnyStep, Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { reencryptSealed, revokeOtherKeys, surveySealed } from "../accounts/key-change.ts";
import { parseHeartbeat } from "../pinset/heartbeat.ts";
import { parseMemory } from "../pinset/snapshot/memory.ts";
import { readEnvFile } from "../settings/context.ts";
import { setValues } from "../settings/env-file.ts";
import { ROTATED, serialiseRotation } from "../settings/rotation.ts";
import { acceptance } from "./acceptance.ts";
import { findHolders, placeOf, readStage, type RotationContext, targetOf } from "./stage.ts";

/** The first half of a rotation: save the new value, make its counterpart accept it, put it in place of the old one. */
export function openingSteps(context: RotationContext): readonly AnyStep[] {
  return [newValue(context), ...acceptance(context), switchOver(context)];
}

type PathChange = Change & { readonly path: string };

/** Saves the new value beside the old one, before anything depends on it. */
function newValue(context: RotationContext): StepSpec<null, PathChange> {
  const { secret, layout } = context;
  const path = layout.rotation;
  return {
    id: "rotation-record",
    title: `new ${secret}`,
    touches: "Saves the new value and the old one to `rotation.json` (0600).",

    async probe(host): Promise<Finding<null>> {
      const stage = await readStage(host, context);
      const evidence = { [path]: stage.at === "none" ? "absent" : "has both values" };
      return stage.at === "none"
        ? { state: "absent", seen: null, evidence }
        : { state: "ours", seen: null, evidence };
    },

    plan: ({ state }) =>
      state === "ours"
        ? []
        : [
            {
              kind: "save-new-secret",
              summary: `save the new and the old ${secret} to ${path} (0600)`,
              path,
            },
          ],

    async apply(_change, host) {
      const stage = await readStage(host, context);
      if (stage.at !== "none") return;
      const rotation = { secret, previous: stage.current, next: await context.makeNext(host) };
      await host.files.writeAtomic(path, serialiseRotation(rotation), { mode: 0o600 });
    },

    async verify(host) {
      const stat = await host.files.stat(path);
      if ((await readStage(host, context)).at !== "none" && stat?.mode === 0o600) return;
      throw unhealthy(`${path} does not have what was just written`);
    },
  };
}

/** Puts the new value in place of the old one. */
function switchOver(context: RotationContext): StepSpec<null, PathChange> {
  const { secret, layout } = context;
  const path = placeOf(secret, layout);
  const key = ROTATED[secret];
  return {
    id: "rotation-switch",
    title: `${secret} in use`,
    touches: "Puts the new value in place of the old one.",

    async probe(host): Promise<Finding<null>> {
      const { at } = await readStage(host, context);
      const evidence = { [path]: at === "switched" ? "the new value" : "the old value" };
      return at === "switched"
        ? { state: "ours", seen: null, evidence }
        : { state: "absent", seen: null, evidence };
    },

    plan: ({ state }) =>
      state === "ours"
        ? []
        : [
            {
              kind: "switch-secret",
              summary: `write the new ${key ?? "key"} to ${path}`,
              path,
            },
          ],

    async apply(_change, host) {
      const stage = await readStage(host, context);
      if (stage.at === "none") throw unhealthy(`${layout.rotation} is gone`);
      const { next } = stage.rotation;
      if (key !== null) {
        const text = setValues(await readEnvFile(host, path), new Map([[key, next]]));
        await host.files.writeAtomic(path, text, { mode: 0o600 });
        return;
      }
      const { publicPem } = await host.signing.publicKey(next, layout.rotation);
      await host.files.writeAtomic(path, next, { mode: 0o600 });
      await host.files.writeAtomic(layout.verifyingKey, publicPem, { mode: 0o644 });
    },

    async verify(host) {
      if ((await readStage(host, context)).at !== "switched")
        throw unhealthy(`${path} does not have the new value`);
    },
  };
}

const SNAPSHOT_DEADLINE_MS = 3_600_000;

/**
 * The end of a rotation, after the containers were made again: what depends on the new value being in use, and then the
 * removal of the old value. `changes` is its whole plan, which does not depend on the machine.
 */
export function endingStep(context: RotationContext): {
  readonly step: AnyStep;
  readonly changes: readonly Change[];
} {
  const { secret, layout, nodePath } = context;
  const runs = [
    nodePath,
    `${layout.cliCurrent}/bin/fula-node.js`,
    "snapshot",
    "take",
    "--base-dir",
    layout.baseDir,
  ];
  const changes: Change[] = [];
  if (secret === "jwt-secret")
    changes.push({
      kind: "revoke-keys",
      summary: "revoke the API keys that were signed with the old secret",
    });
  if (secret === "encryption-key")
    changes.push({ kind: "encrypt-rest", summary: "encrypt again what was written meanwhile" });
  if (secret === "snapshot-key")
    changes.push({ kind: "take-snapshot", summary: "take the first snapshot with the new key", runs });

  changes.push({ kind: "forget-old-secret", summary: `remove the old value (${layout.rotation})` });

  const step: StepSpec<null, Change> = {
    id: "rotation-end",
    title: `old ${secret}`,
    touches: "Removes the old value, after everything uses the new one.",

    async probe(host): Promise<Finding<null>> {
      const { at } = await readStage(host, context);
      const evidence = { [layout.rotation]: at === "none" ? "absent" : "has the old value" };
      if (at === "none") return { state: "ours", seen: null, evidence };
      return { state: "drifted", seen: null, drift: ["the old value is still kept"], evidence };
    },

    plan: ({ state }) => (state === "ours" ? [] : changes),

    async apply(change, host, report) {
      const stage = await readStage(host, context);
      if (stage.at !== "switched") throw unhealthy(`${placeOf(secret, layout)} does not have the new value`);
      const { previous, next } = stage.rotation;
      if (change.kind === "revoke-keys") {
        const keys = { jwtSecret: next, encryptionKey: context.values("ENCRYPTION_KEY") ?? "" };
        const count = await host.postgres.session(targetOf(context), (database) =>
          revokeOtherKeys(database, keys),
        );
        report(`${count} API keys revoked`);
      } else if (change.kind === "encrypt-rest") {
        await host.postgres.session(targetOf(context), async (database) => {
          await reencryptSealed(database, host.random, { previous, next }, report);
          const rest = await surveySealed(database, { previous, next });
          if (rest.previous > 0) throw unhealthy("another program still writes with the old key");
        });
      } else if (change.kind === "take-snapshot") await takeSnapshot(host, context, { next, runs, report });
      else {
        await refuseHolders(host, previous);
        await host.files.remove(layout.rotation);
      }
    },

    async verify(host) {
      if ((await readStage(host, context)).at !== "none")
        throw unhealthy(`${layout.rotation} is still there`);
    },
  };
  return { step, changes };
}

/** Takes a snapshot, unless cron has already taken one with the new key. An alarm about the pinset does not stop the rotation. */
async function takeSnapshot(
  host: Host,
  { layout }: RotationContext,
  {
    next,
    runs,
    report,
  }: {
    readonly next: string;
    readonly runs: readonly string[];
    readonly report: (line: string) => void;
  },
): Promise<void> {
  const { id } = await host.signing.publicKey(next, layout.rotation);
  /** The number of the last snapshot, if it has the new key. */
  const taken = async (): Promise<number | null> => {
    const memory = parseMemory(await host.files.readText(layout.snapshotMemory));
    return memory !== null && memory !== "damaged" && memory.last?.keyId === id ? memory.last.sequence : null;
  };
  // The record of a run is the last thing that it writes: one that was killed before has not ended its work.
  const isRecorded = async (): Promise<boolean> => {
    const [memory, record] = await Promise.all([
      host.files.stat(layout.snapshotMemory),
      host.files.readText(layout.snapshotHeartbeat),
    ]);
    const lastGood = parseHeartbeat(record)?.last_good_at ?? null;
    return memory !== null && lastGood !== null && Date.parse(lastGood) >= memory.modifiedAt.getTime();
  };
  const before = await taken();
  if (before !== null && (await isRecorded())) return;
  const isNew = async (): Promise<boolean> => {
    const now = await taken();
    return now !== null && (before === null || now > before);
  };
  try {
    await host.system.runCommand(runs, { timeoutMs: SNAPSHOT_DEADLINE_MS });
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || !(await isNew())) throw thrown;
    report(`The snapshot was taken, but there is an alarm: ${thrown.why ?? thrown.what}`);
  }
  if (!(await isNew())) throw unhealthy("the snapshot was not taken with the new key");
}

async function refuseHolders(host: HostReader, previous: string): Promise<void> {
  const { ours } = await findHolders(host, previous);
  if (ours.length > 0)
    throw unhealthy(`${ours.map(({ name }) => name).join(", ")} still has the old value of the secret`);
}

function unhealthy(why: string): OperatorError {
  return new OperatorError({
    exit: "unhealthy",
    what: `The rotation is not finished: ${why}.`,
    remedy: "Run the same command again.",
  });
}
