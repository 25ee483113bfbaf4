import { leave, type LeaveFlags } from "../../src/commands/leave.ts";
import type { VerbExit } from "../../src/errors.ts";
import { releaseText } from "../../src/federation/announcement.ts";
import type { World } from "../../src/world.ts";
import { join } from "./master-boxes.ts";
import { FakeStorage, worldOf } from "./storage-fake.ts";

/** How a leave on a fake box ended. */
export interface LeaveEnd {
  readonly exit: VerbExit;
  readonly data: Readonly<Record<string, unknown>>;
  readonly lines: readonly string[];
}

const FLAGS: LeaveFlags = { dryRun: false, yes: true, purge: [], release: true };
/** The hostname of the fake machine. */
export const HOSTNAME = "Box.example";
/** Flags of a leave that removes everything, with its confirmation. */
export const PURGE_ALL = { purge: ["all"], confirm: HOSTNAME } as const;

/** Data files of a writer that was made here. */
const WRITER_DATA = ["/opt/fula-writer/kubo/config", "/opt/fula-writer/ipfs-cluster/identity.json"];

/** A box that is a master with its own writer. */
export async function leavingMaster(): Promise<FakeStorage> {
  const host = new FakeStorage();
  await join(host);
  for (const path of WRITER_DATA) host.files.put(path, path, 0o600);
  host.revive();
  return host;
}

/** A box that is a master whose database is on another machine. */
export async function masterElsewhere(): Promise<FakeStorage> {
  const host = new FakeStorage();
  host.databasesElsewhere.set("db.example", {
    user: "pinning_user",
    password: "p4ssword-x",
    database: "pinning_service",
  });
  await join(host, { set: { POSTGRES_HOST: "db.example", POSTGRES_PASSWORD: "p4ssword-x" } });
  return host;
}

/** Runs `leave` on a fake box. */
export async function leaveOn(
  host: FakeStorage,
  flags: Partial<LeaveFlags> = {},
  parts: Partial<World> = {},
): Promise<LeaveEnd> {
  const ended: { data: LeaveEnd["data"]; lines: readonly string[] } = { data: {}, lines: [] };
  const world = worldOf(host, {
    pid: 7,
    takeLock: () => Promise.resolve({ release: () => Promise.resolve() }),
    openNodesClient: (url) => ({
      url,
      send: async (method, _path, body) => {
        const { names } = host;
        const message = body as Parameters<typeof releaseText>[0];
        if (names === null || method !== "DELETE") return { failure: "connection refused" };
        await host.gate.write(`release ${message.name}`, () => void names.delete(message.name));
        return { status: 200, body: { outcome: "Released" } };
      },
    }),
    ...parts,
  });
  const reporter = { ...world.reporter, result: (result: typeof ended) => Object.assign(ended, result) };
  const exit = await leave({ ...FLAGS, ...flags }, { ...world, reporter, ...parts });
  return { exit, ...ended };
}

/** The files on a box in the directories that joins write to. */
export function filesOf(host: FakeStorage): readonly string[] {
  const { files } = host.snapshot();
  return Object.entries(files)
    .filter(([path, entry]) => /^\/(opt|etc)\//.test(path) && !entry.startsWith("directory"))
    .map(([path]) => path);
}
