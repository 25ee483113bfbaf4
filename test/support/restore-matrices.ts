import { FIRST_JOIN, fulaNode, PROGRAM } from "./artifact.ts";
import type { Box } from "./box.ts";
import { anotherSnapshot, bootDocker, JOURNAL, untilHealthy } from "./crash-matrices.ts";
import type { CrashMatrix } from "./crash-matrix.ts";
import { FORMER_PROGRAM, installFormerRelease } from "./former-release.ts";
import { expectExit } from "./master-box.ts";

const ARCHIVE = "/root/master.age";
const PASSPHRASE = "/root/passphrase.txt";
const OPEN = ["--set-file", `BACKUP_PASSPHRASE=${PASSPHRASE}`];

/** An empty machine, with the backup of a master that had an account and two snapshots. */
async function bootWithBackup(): Promise<Box> {
  const master = await bootDocker();
  try {
    expectExit(await fulaNode(master, FIRST_JOIN), 0);
    expectExit(await fulaNode(master, ["user", "create", "--email", "a@example.org"]), 0);
    expectExit(await fulaNode(master, ["snapshot", "take"]), 0);
    await master.writeFile(PASSPHRASE, "correct horse battery staple", 0o600);
    expectExit(await fulaNode(master, ["backup", "create", "--to", "/root/backups", ...OPEN]), 0);
    const bytes = await master.run("base64 -w0 /root/backups/*");
    const box = await bootDocker();
    await box.writeFile(PASSPHRASE, "correct horse battery staple", 0o600);
    await box.run(`umask 077; base64 -d >${ARCHIVE}`, { input: bytes.stdout });
    return box;
  } finally {
    await master.destroy();
  }
}

const RESTORE = [
  "join-as-master",
  "--yes",
  "--from-backup",
  ARCHIVE,
  ...OPEN,
  "--old-machine-is-off",
  "matrix",
];

/** An empty machine becomes the master of a backup. */
export const RESTORE_MATRIX: CrashMatrix = {
  name: "join-as-master from a backup",
  prepare: bootWithBackup,
  command: RESTORE,
  // Once it is this master again, there is nothing to restore, and the flag is refused.
  async again(box) {
    const isRestored = await box.exec(
      "test -e /opt/fula-master/.env && ! test -e /opt/fula-master/from-backup/manifest.json",
    );
    return isRestored.exitCode === 0 ? ["join-as-master", "--yes"] : RESTORE;
  },
  allowed: anotherSnapshot(3),
  journal: JOURNAL,
};

/** A master that was upgraded gets the services and the program of the version before again. */
export const ROLLBACK_MATRIX: CrashMatrix = {
  name: "join-as-master --rollback",
  async prepare() {
    const box = await bootDocker();
    await installFormerRelease(box);
    expectExit(await box.exec(["node", FORMER_PROGRAM, ...FIRST_JOIN]), 0);
    expectExit(await box.exec(["node", PROGRAM, "join-as-master", "--yes", "--without-backup"]), 0);
    return box;
  },
  ready: untilHealthy,
  command: ["join-as-master", "--rollback", "--yes"],
  journal: JOURNAL,
};
