import { spawn } from "node:child_process";
import { readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { until } from "./migrations.ts";
import { sql } from "./postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** The main process of a test server, found from a session, so that a test can kill it and start it again. */
export class Postmaster {
  readonly #target: PostgresTarget;
  readonly #argv: readonly string[];
  readonly #base: string;
  readonly #data: string;
  readonly #user: { readonly uid: number; readonly gid: number };
  #pid: number;

  private constructor(
    target: PostgresTarget,
    pid: number,
    facts: { readonly argv: readonly string[]; readonly base: string; readonly data: string },
    user: { readonly uid: number; readonly gid: number },
  ) {
    this.#target = target;
    this.#pid = pid;
    this.#argv = facts.argv;
    this.#base = facts.base;
    this.#data = facts.data;
    this.#user = user;
  }

  /** After the test, the server runs as it did. */
  static async of(target: PostgresTarget): Promise<Postmaster> {
    const [row] = await sql<{ pid: number; data: string }>(
      target,
      "SELECT pg_backend_pid() AS pid, current_setting('data_directory') AS data",
    );
    const data = row?.data ?? "";
    const [first = ""] = (await readFile(join(data, "postmaster.pid"), "utf8")).split("\n");
    const pid = Number(first);
    const argv = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").slice(0, -1);
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const idOf = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1]);
    const base = await readlink(`/proc/${pid}/cwd`);
    const found = new Postmaster(
      target,
      pid,
      { argv, base: base === data ? join(data, "..") : base, data },
      { uid: idOf("Uid"), gid: idOf("Gid") },
    );
    onTestFinished(() => found.#restore());
    return found;
  }

  /** Sends a signal to the main process, and waits until it and all of its sessions have ended. */
  async end(signal: "SIGKILL" | "SIGINT"): Promise<void> {
    const children = await this.#children();
    process.kill(this.#pid, signal);
    const gone = async (pid: number) => {
      const state = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
      return state === null || /\) [ZX]/.test(state);
    };
    await until("the server has ended", async () => {
      for (const pid of [this.#pid, ...children]) if (!(await gone(pid))) return false;
      return true;
    });
  }

  /** Starts it on the same data. `standby`: in recovery that does not end, with or without sessions that read. */
  async start(standby?: "closed" | "read-only"): Promise<void> {
    const signal = join(this.#data, "standby.signal");
    await rm(signal, { force: true });
    if (standby !== undefined) await writeFile(signal, "", { mode: 0o644 });
    const more = standby === undefined ? [] : ["-c", `hot_standby=${standby === "closed" ? "off" : "on"}`];
    const [program = "", ...argv] = this.#argv;
    const child = spawn(program, [...argv, ...more], { cwd: this.#base, ...this.#user, stdio: "ignore" });
    this.#pid = child.pid ?? 0;
    if (standby === "closed") return;
    const answers = () =>
      sql(this.#target, "SELECT 1").then(
        () => true,
        () => false,
      );
    await until("the server answers", answers);
  }

  async #children(): Promise<readonly number[]> {
    const found: number[] = [];
    for (const name of await readdir("/proc")) {
      const state = /^\d+$/.test(name) ? await readFile(`/proc/${name}/stat`, "utf8").catch(() => "") : "";
      if (Number(/\) \S (\d+)/.exec(state)?.[1]) === this.#pid) found.push(Number(name));
    }
    return found;
  }

  async #restore(): Promise<void> {
    const works = await sql(
      this.#target,
      "SELECT FROM (SELECT 1) AS one WHERE NOT pg_is_in_recovery()",
    ).catch(() => []);
    if (works.length > 0) return;
    const isThere = await readFile(`/proc/${this.#pid}/stat`, "utf8").then(
      (state) => !/\) [ZX]/.test(state),
      () => false,
    );
    if (isThere) await this.end("SIGKILL");
    await this.start();
  }
}
