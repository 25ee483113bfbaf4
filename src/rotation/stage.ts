import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { readEnvFile, type Values } from "../settings/context.ts";
import { isOurs, type MasterLayout } from "../settings/layout.ts";
import { postgresTarget, type PostgresTarget } from "../settings/postgres-target.ts";
import { parseRotation, ROTATED, type Rotation, type SecretName } from "../settings/rotation.ts";
import { savedValue } from "../settings/settings.ts";

/** The input of the steps of a rotation. */
export interface RotationContext {
  readonly secret: SecretName;
  readonly layout: MasterLayout;
  /** The Node.js program that runs the installed fula-node. */
  readonly nodePath: string;
  /** The settings of the node. Not for the secret itself, which changes. */
  readonly values: Values;
  /** The new value: a given or a generated one. */
  readonly makeNext: (host: Host) => string | Promise<string>;
}

/** How far a rotation is. `given`: the new value is saved. `switched`: it is in place of the old one. */
export type Stage =
  | { readonly at: "none"; readonly current: string }
  | { readonly at: "given" | "switched"; readonly rotation: Rotation };

/** Reads how far the rotation is. Throws (`drift`) if the place of the secret has neither the old nor the new value. */
export async function readStage(
  host: HostReader,
  { secret, layout }: Pick<RotationContext, "secret" | "layout">,
): Promise<Stage> {
  const [current, text] = await Promise.all([
    readCurrent(host, secret, layout),
    host.files.readText(layout.rotation),
  ]);
  const rotation = parseRotation(text, layout.rotation);
  if (current !== null && rotation === null) return { at: "none", current };
  if (rotation !== null && current === rotation.next) return { at: "switched", rotation };
  if (rotation !== null && current === rotation.previous) return { at: "given", rotation };
  const place = placeOf(secret, layout);
  const where = ROTATED[secret] === null ? place : `${ROTATED[secret]} in ${place}`;
  if (rotation === null)
    throw new OperatorError({
      exit: "settings",
      what: `${where} has no value, so there is nothing to change.`,
      remedy: "Run join-as-master first.",
    });
  throw new OperatorError({
    exit: "drift",
    what: `${where} is neither the old nor the new value of the rotation that is under way.`,
    why: `Somebody changed it since then. ${layout.rotation} has both values.`,
    remedy: "Put the value of `previous` or of `next` back there, then run again.",
  });
}

/** The file that has the secret. */
export function placeOf(secret: SecretName, layout: MasterLayout): string {
  return ROTATED[secret] === null ? layout.signingKey : layout.envFile;
}

async function readCurrent(
  host: HostReader,
  secret: SecretName,
  layout: MasterLayout,
): Promise<string | null> {
  const key = ROTATED[secret];
  if (key === null) return await host.files.readText(layout.signingKey);
  return savedValue(await readEnvFile(host, layout.envFile), key) ?? null;
}

/**
 * The containers that have a value in their environment: those that fula-node created, and the others. Throws
 * (`unavailable`) if Docker does not answer: its containers could not be seen.
 */
export async function findHolders(
  host: HostReader,
  value: string,
): Promise<{ readonly ours: readonly Container[]; readonly others: readonly Container[] }> {
  const why = await host.docker.unreachable();
  if (why !== null)
    throw new OperatorError({
      exit: "unavailable",
      what: `Docker does not answer, so it is not known what uses the secret: ${why}.`,
      remedy: "Start Docker (systemctl start docker), then run again.",
    });
  const all = await host.docker.containers();
  const holders = all.filter(({ env }) => Object.values(env).includes(value));
  return {
    ours: holders.filter((one) => isOurs(one)),
    others: holders.filter((one) => !isOurs(one)),
  };
}

/** The connection to the database, with another password if one is given. Throws (`settings`) if there is no password. */
export function targetOf({ values, layout }: RotationContext, password?: string): PostgresTarget {
  const target = postgresTarget((key) =>
    key === "POSTGRES_PASSWORD" ? (password ?? values(key)) : values(key),
  );
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${layout.envFile} has no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master first.",
  });
}
