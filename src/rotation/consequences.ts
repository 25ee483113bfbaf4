import { ROTATED, type SecretName } from "../settings/rotation.ts";

/** What a rotation meets on this machine. */
export interface RotationScene {
  /** Our containers that have the old value; they are made again. */
  readonly ours: readonly string[];
  /** Containers that fula-node did not create and that have the old value. */
  readonly others: readonly string[];
  readonly databaseElsewhere: boolean;
  /** The fingerprint of the snapshot key that is replaced; null for other secrets. */
  readonly fingerprint: string | null;
  readonly envFile: string;
}

/** What each secret's change invalidates, as sentences. */
const EFFECTS: Readonly<Record<SecretName, readonly string[]>> = {
  "database-password": [
    "Until the services have the new password, they can't open new connections: some seconds.",
    "Data stays. Programs of your own that log in to the database need the new password.",
  ],
  "system-key": [
    "Programs that call the /admin routes of the pinning API need the new key: the old one is refused at once.",
  ],
  "jwt-secret": [
    "Every API key stops working, also those of storage nodes that upload. The rows in api_keys stay, marked as revoked.",
    "Each user needs a new key: fula-node user token --email ADDRESS. Tokens that other programs signed stop working, too.",
  ],
  "session-secret": [
    "Everybody who is signed in to upstream's web service is signed out. API keys keep working.",
  ],
  "encryption-key": [
    "E-mail addresses, wallets and API keys in the database are encrypted again. The storage API does not answer meanwhile.",
    "Backups of the database need the key of their day: keep the old .env with the old backups.",
  ],
  "snapshot-key": [
    "The next snapshot has the new key, and names the old one, so its chain goes on. Old snapshots stay valid here.",
    "Open invites that the old key signed stay valid, under its fingerprint. New ones have the new fingerprint.",
    "If somebody has the old key, revoke the open invites (fula-node invite list, fula-node invite revoke ID), and warn those who got the old fingerprint: anybody could make invites with it.",
    "Copy the new public key to where you check snapshots. Keep the old one there for old snapshots.",
  ],
};

/** What a rotation invalidates and who must do something, in sentences. The plan starts with it. */
export function describeConsequences(secret: SecretName, scene: RotationScene): readonly string[] {
  const { others, databaseElsewhere, fingerprint, envFile } = scene;
  const key = ROTATED[secret];
  const isShared = ["POSTGRES_PASSWORD", "JWT_SECRET", "ENCRYPTION_KEY"].includes(key ?? "");
  return [
    ...EFFECTS[secret],
    ...(fingerprint === null ? [] : [`The key that is replaced has the fingerprint ${fingerprint}.`]),
    ...(others.length === 0
      ? []
      : [`Not created by fula-node, and still with the old value: ${others.join(", ")}.`]),
    ...(databaseElsewhere && isShared
      ? [
          `Other masters that use this database need the new value of ${key}: put it into their .env, then run join-as-master there.`,
        ]
      : []),
    key === null
      ? "Afterwards, keep a copy of the new key on another machine."
      : `Afterwards, keep a copy of ${envFile} on another machine.`,
  ];
}
