import * as z from "zod";
import { OperatorError } from "../errors.ts";

/** The secrets that `secret rotate` changes, each with its key in `.env`. The snapshot key is a file of its own. */
export const ROTATED = {
  "database-password": "POSTGRES_PASSWORD",
  "system-key": "SYSTEM_KEY",
  "jwt-secret": "JWT_SECRET",
  "session-secret": "SESSION_SECRET",
  "encryption-key": "ENCRYPTION_KEY",
  "snapshot-key": null,
} as const satisfies Readonly<Record<string, string | null>>;

/** The name of a secret on the command line. */
export type SecretName = keyof typeof ROTATED;

const NAMES = Object.keys(ROTATED) as readonly SecretName[];

/** The secret with this name, or with this key of `.env`. Throws an OperatorError (`usage`) for any other word. */
export function parseSecretName(given: string): SecretName {
  const found = NAMES.find((name) => name === given) ?? secretNameOf(given);
  if (found !== undefined) return found;
  throw new OperatorError({
    exit: "usage",
    what: `There is no secret named ${JSON.stringify(given.slice(0, 40))}.`,
    remedy: `Names are: ${NAMES.join(", ")}.`,
  });
}

/** The name of the secret with this key of `.env`; undefined if `secret rotate` does not change it. */
export function secretNameOf(key: string): SecretName | undefined {
  return NAMES.find((name) => ROTATED[name] === key);
}

/**
 * A secret that is being changed. The record is written before anything depends on the new value, and removed when
 * nothing needs the old one any more: in between, both are on the disk.
 */
export interface Rotation {
  readonly secret: SecretName;
  /** The value before: of a key in `.env`, or the private key as PEM. */
  readonly previous: string;
  readonly next: string;
}

const schema = z.object({
  version: z.literal(1),
  secret: z.enum(NAMES),
  previous: z.string().min(1),
  next: z.string().min(1),
});

/** Reads the record; null if there is none. Throws an OperatorError (`integrity`) that contains no value if it is damaged. */
export function parseRotation(text: string | null, path: string): Rotation | null {
  if (text === null) return null;
  const read = schema.safeParse(jsonOf(text));
  if (read.success) {
    const { secret, previous, next } = read.data;
    return { secret, previous, next };
  }
  throw new OperatorError({
    exit: "integrity",
    what: `${path} is damaged. It has the old and the new value of a secret that is being changed.`,
    remedy:
      "Do not remove it: it may have the only copy of a value that is in use. Restore it from your backup.",
  });
}

/** The text of the record. */
export function serialiseRotation({ secret, previous, next }: Rotation): string {
  return `${JSON.stringify({ version: 1, secret, previous, next } satisfies z.infer<typeof schema>, null, 2)}\n`;
}

/** The command that finishes a rotation. */
export function commandOf(secret: SecretName, flags: string): string {
  return `fula-node secret rotate ${secret}${flags}`;
}

/** The error (`preflight`) of a verb that must not run before a rotation is finished. */
export function unfinishedRotation({ secret }: Rotation, flags: string): OperatorError {
  return new OperatorError({
    exit: "preflight",
    what: `The change of the ${secret} is not finished.`,
    why: "Parts of this node may use the old value and others the new one.",
    remedy: `Finish it: ${commandOf(secret, flags)}`,
  });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
