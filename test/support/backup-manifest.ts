import { type BackupManifest, newManifest } from "../../src/backup/backup-manifest.ts";

/** The manifest of a backup of a master without anything special. */
export function manifestOf(more: Partial<BackupManifest> = {}): BackupManifest {
  return newManifest({
    created_at: "2026-01-01T00:00:00.000Z",
    tool: { name: "fula-node", version: "0.1.0" },
    pool: "my-pool",
    master: { id: null, name: "one", hostname: "old-box", base_dir: "/opt/fula-master", writer_dir: null },
    peers: { kubo: null, cluster: null },
    database: {
      is_elsewhere: false,
      name: "pinning_service",
      server_version: "16.9",
      major: 16,
      migration: 1,
      roles: [],
    },
    snapshots: [],
    ...more,
  });
}
