import { secretFilesOf } from "../cluster/writer.ts";
import type { HostReader } from "../host.ts";
import { canRead } from "../machine/owner-check.ts";
import { CONTAINER_USER } from "../settings/layout.ts";
import type { Check } from "./check.ts";

/** An entry of /etc/passwd (passwd(5)). */
interface Account {
  readonly name: string;
  readonly uid: number;
  readonly home: string;
  readonly shell: string;
}

/** Passes if no user or group of this machine has the number of fula-node's containers. */
export const containerUser: Check = {
  id: "uid",
  title: "the user of the containers",
  ignorable: false,

  async run(host) {
    const { uid, gid } = CONTAINER_USER;
    const [accounts, groups] = await Promise.all([readAccounts(host), readLines(host, "/etc/group")]);
    const taken = [
      ...accounts
        .filter((account) => account.uid === uid)
        .map(({ name }) => `the user ${name} has uid ${uid}`),
      ...groups
        .filter(([, , id]) => id === String(gid))
        .map(([name = ""]) => `the group ${name} has gid ${gid}`),
    ];
    if (taken.length === 0) return [];
    return [
      {
        severity: "failure",
        what: `On this machine, ${taken.join(" and ")}.`,
        why: "fula-node runs its containers with this number. Whoever else has it can read their secrets and their data.",
        remedy: "Give that user and group another number (usermod --uid, groupmod --gid), then run again.",
      },
    ];
  },
};

/** Debian gives these numbers to people (Debian policy 9.2.2). */
const FIRST_PERSON = 1000;
const NOBODY = 65_534;
const NO_LOGIN = /\/(nologin|false|sync|true)$/;
const MOST_NAMED = 5;

/** Warns if others than root can log in. */
export const otherUsers: Check = {
  id: "users",
  title: "other users of the machine",
  ignorable: true,

  async run(host) {
    const accounts = await readAccounts(host);
    const candidates = accounts.filter(
      ({ uid, home, shell }) => uid >= FIRST_PERSON && uid !== NOBODY && home !== "" && !NO_LOGIN.test(shell),
    );
    const homes = await Promise.all(candidates.map(({ home }) => host.files.stat(home)));
    const names = candidates.filter((_, index) => homes[index] !== null).map(({ name }) => name);
    if (names.length === 0) return [];
    const more = names.length - MOST_NAMED;
    const list = `${names.slice(0, MOST_NAMED).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
    return [
      {
        severity: "warning",
        what: `Other users can log in to this machine: ${list}.`,
        why: "kubo's RPC on 127.0.0.1:5001 has no password, because ipfs-cluster can't send one. Every user of this machine can read, add and remove blocks.",
        remedy: "Use a machine on which only root can log in, or trust these users.",
      },
    ];
  },
};

/**
 * Warns if people can read the keys and secrets of a writer that fula-node did not create: it does not change the owner
 * of these files. The images' user has the number of the first person on a Debian.
 */
export const writerSecrets: Check = {
  id: "secrets",
  title: "keys and secrets of an adopted writer",
  ignorable: true,

  async run(host, { ownership }) {
    if ((await host.docker.unreachable()) !== null) return [];
    const adopted = (await host.docker.containers()).filter((one) => ownership(one) === "adopted-writer");
    const [files, accounts] = await Promise.all([secretFilesOf(host, adopted), readAccounts(host)]);
    const people = new Map([[FIRST_PERSON, `uid ${FIRST_PERSON}`]]);
    for (const { uid, name, shell } of accounts)
      if (uid >= FIRST_PERSON && uid !== NOBODY && !NO_LOGIN.test(shell)) people.set(uid, name);
    const found = await Promise.all(
      [...people].map(async ([uid, name]) => {
        const readable = await Promise.all(files.map((path) => canRead(host.files, uid, path)));
        return { name, paths: files.filter((_, index) => readable[index]) };
      }),
    );
    return found
      .filter(({ paths }) => paths.length > 0)
      .slice(0, MOST_NAMED)
      .map(({ name, paths }) => ({
        severity: "warning" as const,
        what: `The user ${name} can read keys and secrets of the writer: ${paths.join(", ")}.`,
        why: "With these, anybody can be this peer, change the pinset, or join the pool.",
        remedy:
          "Run chmod 700 on a directory above them that belongs to root: containers keep what is mounted. fula-node does not change an adopted writer.",
      }));
  },
};

async function readAccounts(host: HostReader): Promise<readonly Account[]> {
  return (await readLines(host, "/etc/passwd")).flatMap(
    ([name = "", , uid = "", , , home = "", shell = ""]) =>
      /^[0-9]+$/.test(uid) ? [{ name, uid: Number(uid), home, shell }] : [],
  );
}

/** The fields of each line. A machine always has these files; without them, nobody is known. */
async function readLines(host: HostReader, path: string): Promise<readonly (readonly string[])[]> {
  const text = (await host.files.readText(path)) ?? "";
  return text.split("\n").map((line) => line.split(":"));
}
