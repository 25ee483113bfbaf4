import { describeRefusal } from "../database/connection-fault.ts";
import type { PostgresReader } from "../database/postgres.ts";
import { databaseErrorOf } from "../database/session.ts";
import { describeProof, parseRestoreRecord } from "../dumps/restore-record.ts";
import { judgeDatabase as judgeDatabaseState } from "../database/state.ts";
import { findWriteFault, WRITE_FAULTS, type WriteFault } from "../database/writable.ts";
import { readContainerEnv, type Values } from "../settings/context.ts";
import type { EnvFile } from "../settings/env-file.ts";
import { type MasterLayout, NAMES } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { isDatabaseElsewhere, postgresTarget, type PostgresTarget } from "../settings/postgres-target.ts";
import { MASTER_RECOVERABLE } from "../settings/secrets.ts";
import { type Monotonic, QUERY_MS } from "./collect.ts";
import { type Containers, faultOfContainer } from "./judge-docker.ts";
import { judgeDatabase } from "./judge-master.ts";
import { type Ask, orNull, orWhy, type StatusDeps, whyRefused } from "./look-at-node.ts";
import { type Judged, LATE, type Remark, REPAIR_MASTER } from "./part.ts";

/** What the look at the database of a master needs. */
interface Given {
  readonly deps: Pick<StatusDeps, "host">;
  readonly layout: Pick<MasterLayout, "restoreRecord">;
  readonly values: Values;
  /** `.env`. */
  readonly saved: EnvFile & { ok: true };
  readonly ask: Ask;
  readonly clock: Monotonic;
  readonly containers: Promise<Containers>;
}

/** The database: whether it answers, its schema and size, and whether the services can write to it. */
export async function lookAtDatabase(node: Given): Promise<Judged> {
  const { deps, ask, containers, clock } = node;
  const { postgres, migrations } = deps.host;
  const values = await withPassword(node);
  const place = `${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`;
  const target = postgresTarget(values);
  const facts = {
    place,
    schema: null,
    sizeBytes: null,
    held: null,
    proven: null,
    refusal: null,
    remarks: [],
  };
  if (target === null) return judgeDatabase({ ...facts, answer: null }, REPAIR_MASTER);
  const [known, answer, schema, masters, sizeBytes, holds, fault, record] = await Promise.all([
    containers,
    ask(() => postgres.ask(target)),
    orWhy(QUERY_MS, () => migrations.status(target), clock),
    ask(() => orNull(() => migrations.readMasters(target))),
    ask(() => postgres.query<{ bytes: string }>(target, SIZE_SQL)).catch(whyRefused),
    ask(() => orNull(() => countHolds(postgres, target))),
    ask(() => orNull(() => findFault(postgres, target))),
    orNull(() => deps.host.files.readText(node.layout.restoreRecord)),
  ]);
  const isHere = !isDatabaseElsewhere(values);
  const stopped = isHere ? faultOfContainer(known, NAMES.postgres, REPAIR_MASTER) : null;
  if (stopped !== null) return stopped;
  const isClosed = answer !== LATE && answer.kind === "unreachable";
  if (isHere && isClosed && known !== null && !known.has(NAMES.postgres))
    return {
      state: "down",
      summary: `there is no container ${NAMES.postgres}`,
      todo: REPAIR_MASTER,
      evidence: { address: place },
    };
  const bytes = typeof sizeBytes === "object" ? Number(sizeBytes[0]?.bytes) : Number.NaN;
  const isOpen = answer !== LATE && answer.kind === "open";
  const read = {
    target,
    schema: "summary" in schema ? null : schema,
    masters: masters === LATE ? null : masters,
  };
  const restored = parseRestoreRecord(record);
  const proof = restored === null ? null : describeProof(restored, deps.host.clock.now());
  const identity = { id: values("MASTER_ID") ?? null };
  return judgeDatabase(
    {
      ...facts,
      answer,
      schema,
      sizeBytes: Number.isFinite(bytes) ? bytes : null,
      held: holds === LATE ? null : holds,
      proven: proof?.sentence ?? null,
      refusal: answer === LATE || answer.kind === "open" ? null : describeRefusal(target, answer),
      remarks: [
        ...(isOpen && read.schema !== null ? [judgeDatabaseState({ ...read, answer }, identity)] : []),
        ...(isOpen && fault !== null && fault !== LATE ? [remarkOf(fault)] : []),
        ...(proof?.isOld === true ? [remarkOnProof(proof.sentence)] : []),
      ],
    },
    REPAIR_MASTER,
  );
}

/** Why the services can't write, although the server answers. */
async function findFault(postgres: PostgresReader, target: PostgresTarget): Promise<WriteFault | null> {
  const [refusal, fault] = await Promise.all([
    postgres.whyNoWriter(target),
    findWriteFault((sql) => postgres.query(target, sql)),
  ]);
  return refusal?.kind === "read-only" ? "read-only" : fault;
}

function remarkOf(fault: WriteFault): Remark {
  const { what, remedy } = WRITE_FAULTS[fault];
  return { state: "down", sentence: what, todo: remedy };
}

/** Only where a restore was proven once: whoever never asked for it is not told that it is late. */
function remarkOnProof(sentence: string): Remark {
  return {
    state: "attention",
    sentence: `the last ${sentence.replace("restore proven", "restore was proven")}`,
    todo: "fula-node drill D9",
  };
}

const SIZE_SQL = "SELECT pg_database_size(current_database())::text AS bytes";

/** How many accounts the operator has suspended by name. Null in a schema older than 025. */
async function countHolds(postgres: PostgresReader, target: PostgresTarget): Promise<number | null> {
  try {
    const sql = "SELECT count(*)::text AS n FROM account_holds";
    return Number((await postgres.query<{ n: string }>(target, sql))[0]?.n);
  } catch (thrown) {
    if (databaseErrorOf(thrown)?.code === "42P01") return null;
    throw thrown;
  }
}

/** The settings and, if `.env` has lost the password, what the containers still have. */
async function withPassword({ deps, values, saved, ask }: Given): Promise<Values> {
  if (values("POSTGRES_PASSWORD") !== undefined) return values;
  const lost = MASTER_RECOVERABLE.filter(({ key }) => values(key) === undefined);
  const found = await ask(() =>
    readContainerEnv(deps.host, { recoverable: lost, specs: MASTER_SETTINGS, saved }),
  );
  return (key) => values(key) ?? (found === LATE ? undefined : found.get(key)?.value);
}
