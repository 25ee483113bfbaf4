import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { nameOfKind } from "../../machine/file-reader.ts";
import type { MasterContext } from "../../settings/context.ts";

interface Seen {
  readonly hasKey: boolean;
  readonly loose: boolean;
  readonly hasPublic: boolean;
}

type KeyChange =
  | (Change & { readonly kind: "make-signing-key"; readonly path: string })
  | (Change & { readonly kind: "restrict-signing-key"; readonly path: string })
  | (Change & { readonly kind: "write-verifying-key"; readonly path: string });

/** The ed25519 key that signs snapshots. A lost key is never replaced while snapshots signed with it exist. */
export function signingKey({ layout }: MasterContext): StepSpec<Seen, KeyChange> {
  const path = layout.signingKey;
  return {
    id: "signing-key",
    title: "key that signs snapshots",
    touches: "Creates the ed25519 key `snapshot-ed25519.pem` (0600) and its public key.",

    async probe(host): Promise<Finding<Seen>> {
      const [stat, pem, publicPem, snapshots] = await Promise.all([
        host.files.stat(path),
        host.files.readText(path),
        host.files.readText(layout.verifyingKey),
        host.files.list(layout.snapshotsDir),
      ]);
      if (stat !== null && stat.kind !== "file")
        return {
          state: "foreign",
          evidence: { [path]: `a ${stat.kind}` },
          why: `${path} is a ${nameOfKind(stat.kind)}, not a file. Snapshots are not signed with such a key: who can change what it points to can replace the key.`,
          remedy: `Put the key itself there: cp --remove-destination "$(readlink -f ${path})" ${path} && chmod 600 ${path}`,
        };
      const signed = (snapshots ?? []).filter((name) => name.endsWith(".sig"));
      if (stat === null || pem === null) {
        const evidence = { [path]: "absent", "signed snapshots": String(signed.length) };
        if (signed.length === 0)
          return { state: "absent", seen: { hasKey: false, loose: false, hasPublic: false }, evidence };
        return {
          state: "foreign",
          evidence,
          why: `The signing key ${path} is missing, but ${layout.snapshotsDir} has ${signed.length} snapshots signed with it.`,
          remedy: `Restore the key from your backup. If there is no copy, move ${layout.snapshotsDir} away (do not delete it) and run again.`,
        };
      }
      const key = await host.signing.publicKey(pem, path);
      const evidence = { [path]: `ed25519 key ${key.id}, mode ${stat.mode.toString(8)}` };
      const seen = { hasKey: true, loose: (stat.mode & 0o077) !== 0, hasPublic: publicPem === key.publicPem };
      const drift = [
        ...(seen.loose
          ? [
              `other users can read it (mode ${stat.mode.toString(8)}); if that may have happened, create a new key`,
            ]
          : []),
        ...(seen.hasPublic ? [] : [`${layout.verifyingKey} is not its public key`]),
      ];
      return drift.length === 0
        ? { state: "ours", seen, evidence }
        : { state: "drifted", seen, drift, evidence };
    },

    plan({ seen: { hasKey, loose, hasPublic } }) {
      return [
        ...(hasKey
          ? []
          : [{ kind: "make-signing-key", summary: `create the ed25519 key ${path}`, path } as const]),
        ...(loose
          ? [{ kind: "restrict-signing-key", summary: `make ${path} readable by root only`, path } as const]
          : []),
        ...(hasPublic
          ? []
          : [
              {
                kind: "write-verifying-key",
                summary: `write the public key ${layout.verifyingKey}`,
                path: layout.verifyingKey,
              } as const,
            ]),
      ];
    },

    async apply(change, host) {
      if (change.kind === "make-signing-key")
        await host.files.writeAtomic(path, await host.signing.generate(), { mode: 0o600 });
      else if (change.kind === "restrict-signing-key") await host.files.chmod(path, 0o600);
      else await host.files.writeAtomic(layout.verifyingKey, await publicPemOf(host, path), { mode: 0o644 });
    },

    async verify(host) {
      await publicPemOf(host, path);
    },
  };
}

async function publicPemOf(host: HostReader, path: string): Promise<string> {
  const pem = await host.files.readText(path);
  if (pem !== null) return (await host.signing.publicKey(pem, path)).publicPem;
  throw new OperatorError({
    exit: "unhealthy",
    what: `The signing key ${path} is missing.`,
    remedy: "Run again.",
  });
}
