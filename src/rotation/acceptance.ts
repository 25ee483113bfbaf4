import { reencryptSealed, surveySealed } from "../accounts/key-change.ts";
import { canPass } from "../database/connection-fault.ts";
import type { AnyStep, Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import {
  type ChainMemory,
  endorsementOf,
  parseMemory,
  type RetiredKey,
  retireKey,
  serialiseMemory,
} from "../pinset/snapshot/memory.ts";
import { poll } from "../settings/context.ts";
import { NAMES } from "../settings/layout.ts";
import type { Rotation } from "../settings/rotation.ts";
import { countOf } from "../units.ts";
import { findHolders, readStage, type RotationContext, targetOf } from "./stage.ts";

/** What must accept the new value before it is put in place of the old one: the database, its rows, or the chain of snapshots. */
export function acceptance(context: RotationContext): readonly AnyStep[] {
  if (context.secret === "database-password") return [rolePassword(context)];
  if (context.secret === "encryption-key") return [reencryption(context)];
  return context.secret === "snapshot-key" ? [keyRetirement(context)] : [];
}

const DATABASE_DEADLINE_MS = 180_000;

/**
 * The step that keeps Postgres running on this machine, as a change that was interrupted needs it: the server may have
 * either password by now, so any answer of a running server is enough.
 */
export function runningDatabase(context: RotationContext, { previous }: Rotation, step: AnyStep): AnyStep {
  return {
    ...step,
    async verify(host) {
      const target = targetOf(context, previous);
      const last: { why: string } = { why: "" };
      const answers = await poll(host, DATABASE_DEADLINE_MS, async () => {
        const answer = await host.postgres.ask(target);
        if (answer.kind === "open" || !canPass(answer)) return true;
        last.why = answer.why;
        return null;
      });
      if (answers === true) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The database at ${target.host}:${target.port} does not answer: ${last.why}.`,
        remedy: `See \`docker logs ${NAMES.postgres}\`, fix the cause, then run again.`,
      });
    },
  };
}

/** The password of the database's role. Whichever of the two values the server accepts is used to log in. */
function rolePassword(context: RotationContext): StepSpec<null, Change> {
  const { user, host: server, port } = targetOf(context);
  const place = `${server}:${port}`;

  async function ask(host: HostReader, { previous, next }: Rotation) {
    const [old, renewed] = await Promise.all([
      host.postgres.ask(targetOf(context, previous)),
      host.postgres.ask(targetOf(context, next)),
    ]);
    return { old, renewed };
  }

  return {
    id: "role-password",
    title: "password of the database role",
    touches: "Changes the password of the role in the database.",

    async probe(host): Promise<Finding<null>> {
      const stage = await readStage(host, context);
      const evidence = { database: place, role: user };
      return stage.at === "switched"
        ? { state: "ours", seen: null, evidence }
        : { state: "absent", seen: null, evidence };
    },

    plan: ({ state }) =>
      state === "ours"
        ? []
        : [{ kind: "change-role-password", summary: `change the password of the role ${user} at ${place}` }],

    async apply(_change, host) {
      const rotation = await requireRotation(host, context);
      const { old, renewed } = await ask(host, rotation);
      if (old.kind !== "open" && renewed.kind === "open") return;
      if (old.kind !== "open") {
        const isRefused = old.kind === "wrong-password" && renewed.kind === "wrong-password";
        throw new OperatorError({
          exit: isRefused ? "settings" : "unavailable",
          what: isRefused
            ? `The database at ${place} accepts neither the old nor the new password of ${user}.`
            : `Cannot log in to the database at ${place}: ${old.kind === "unreachable" ? old.why : old.kind}.`,
          remedy: isRefused
            ? `Set its password to the value of "next" in ${context.layout.rotation}, as administrator of the database. Then run again.`
            : "Start the database, then run again.",
        });
      }
      const target = targetOf(context, rotation.previous);
      await host.postgres.setPassword(target, rotation.next, host.random.hex(16));
    },

    async verify(host) {
      const { renewed } = await ask(host, await requireRotation(host, context));
      if (renewed.kind === "open") return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The database at ${place} does not accept the new password of ${user}: ${renewed.kind}.`,
        remedy: "Run again.",
      });
    },
  };
}

/** What writes with the old key, and how many values it encrypted. */
interface Writers {
  readonly stop: readonly string[];
  readonly values: number;
}

type WriterChange =
  | (Change & { readonly kind: "stop-writer"; readonly container: string })
  | (Change & { readonly kind: "encrypt-again" });

/** The encrypted columns. What writes to them with the old key is stopped first; the join steps start it with the new one. */
function reencryption(context: RotationContext): StepSpec<Writers, WriterChange> {
  return {
    id: "reencryption",
    title: "encrypted columns of the database",
    touches: "Stops the storage API, and encrypts e-mail addresses, wallets and API keys with the new key.",

    async probe(host): Promise<Finding<Writers>> {
      const stage = await readStage(host, context);
      if (stage.at === "switched")
        return {
          state: "ours",
          seen: { stop: [], values: 0 },
          evidence: { "encrypted values": "not counted" },
        };
      const keys = stage.at === "none" ? { previous: stage.current, next: null } : { ...stage.rotation };
      const [counts, holders] = await Promise.all([
        surveyOn(host, context, keys),
        findHolders(host, keys.previous),
      ]);
      const evidence = {
        "encrypted with the old key": String(counts.previous),
        "encrypted with the new key": String(counts.next),
      };
      const others = holders.others.filter(({ status }) => status === "running");
      if (others.length > 0) {
        const names = others.map(({ name }) => name).join(", ");
        return {
          state: "foreign",
          evidence,
          why: `fula-node did not create ${names}, which has this ENCRYPTION_KEY and may write with it.`,
          remedy: "Stop it, and give it the new key afterwards.",
        };
      }
      const seen = { stop: holders.ours.map(({ name }) => name), values: counts.previous };
      return { state: "absent", seen, evidence };
    },

    plan({ state, seen }) {
      if (state === "ours") return [];
      return [
        ...seen.stop.map((container) => ({
          kind: "stop-writer" as const,
          summary: `stop ${container}, which writes with the old key`,
          container,
        })),
        {
          kind: "encrypt-again",
          summary: `encrypt ${countOf(seen.values, "value")} of the database with the new key`,
        },
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "stop-writer") {
        await host.docker.removeContainer(change.container);
        return;
      }
      const keys = await requireRotation(host, context);
      await host.postgres.session(targetOf(context), (database) =>
        reencryptSealed(database, host.random, keys, report),
      );
    },

    async verify(host) {
      const { previous } = await surveyOn(host, context, await requireRotation(host, context));
      if (previous === 0) return;
      throw new OperatorError({
        exit: "interrupted",
        what: `${countOf(previous, "value")} of the database were written with the old key meanwhile.`,
        remedy: "Run again.",
      });
    },
  };
}

/** The old key names the new one, so that the chain of snapshots goes on. Saved before the new key signs anything. */
function keyRetirement(context: RotationContext): StepSpec<null, Change> {
  const path = context.layout.snapshotMemory;

  async function readMemory(host: HostReader): Promise<ChainMemory> {
    const memory = parseMemory(await host.files.readText(path));
    if (memory === "damaged")
      throw new OperatorError({
        exit: "integrity",
        what: `${path} is damaged, so the old key can't be recorded in it.`,
        remedy: "Take a snapshot first (fula-node snapshot take), and look at its alarm.",
      });
    return memory ?? { last: null, retiredKeys: [], removed: null };
  }

  async function isRetired(host: HostReader, rotation: Rotation): Promise<boolean> {
    const [old, successor, memory] = await Promise.all([
      host.signing.publicKey(rotation.previous, "the old snapshot key"),
      host.signing.publicKey(rotation.next, "the new snapshot key"),
      readMemory(host),
    ]);
    return memory.retiredKeys.some(
      ({ keyId, successorId }) => keyId === old.id && successorId === successor.id,
    );
  }

  return {
    id: "key-retirement",
    title: "chain of snapshots",
    touches: "Records that the old key named the new one.",

    async probe(host): Promise<Finding<null>> {
      const stage = await readStage(host, context);
      const memory = await readMemory(host);
      const evidence = { [path]: countOf(memory.retiredKeys.length, "retired key") };
      const isDone = stage.at !== "none" && (await isRetired(host, stage.rotation));
      return isDone ? { state: "ours", seen: null, evidence } : { state: "absent", seen: null, evidence };
    },

    plan: ({ state }) =>
      state === "ours" ? [] : [{ kind: "retire-key", summary: `name the new key in ${path}` }],

    async apply(_change, host) {
      const { previous, next } = await requireRotation(host, context);
      const [old, successor] = await Promise.all([
        host.signing.publicKey(previous, "the old snapshot key"),
        host.signing.publicKey(next, "the new snapshot key"),
      ]);
      const retired: RetiredKey = {
        keyId: old.id,
        publicPem: old.publicPem,
        successorId: successor.id,
        endorsement: await host.signing.sign(
          previous,
          "the old snapshot key",
          endorsementOf(successor.publicPem),
        ),
      };
      const text = serialiseMemory(retireKey(await readMemory(host), retired));
      await host.files.writeAtomic(path, text, { mode: 0o644 });
    },

    async verify(host) {
      if (await isRetired(host, await requireRotation(host, context))) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${path} does not name the new key.`,
        remedy: "Run again.",
      });
    },
  };
}

function surveyOn(
  host: HostReader,
  context: RotationContext,
  keys: { readonly previous: string; readonly next: string | null },
) {
  return surveySealed({ query: (sql, values) => host.postgres.query(targetOf(context), sql, values) }, keys);
}

async function requireRotation(host: HostReader | Host, context: RotationContext): Promise<Rotation> {
  const stage = await readStage(host, context);
  if (stage.at !== "none") return stage.rotation;
  throw new OperatorError({
    exit: "interrupted",
    what: `${context.layout.rotation} is missing: another run may have finished the rotation.`,
    remedy: "Run again.",
  });
}
