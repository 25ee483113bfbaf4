import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFileSync, chownSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, type TestContext } from "vitest";
import { createPostgres } from "../../src/database/postgres.ts";
import { findWriteFault } from "../../src/database/writable.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { createUser, type PinningApi, request, startPinningApi } from "./pins-api.ts";
import { startClusterPeer } from "./serving.ts";
import { startWebui } from "./web-api.ts";

const FULL = "PostgreSQL can't write: its disk is full";
const REMEDY = "Free space on the disk that has PostgreSQL's data, or make it larger.";

describeOnPostgres(
  "a database whose disk is full",
  (postgres) => {
    test("is named with what to do, by health and by each refused request, until there is space again", async (context) => {
      const { target, disk } = await onSmallDisk(context);
      const peer = await startClusterPeer();
      onTestFinished(() => peer.close());
      const api = await startPinningApi(
        target,
        { cluster: { url: peer.url, basicAuth: null }, limits: LIMITS },
        {},
      );
      const ann = await createUser(target, api, "ann");
      expect((await request(`${api.url}/health`)).status).toBe(200);
      disk.fill();
      const refused = await untilRefused(ann);
      expect(refused).toMatchObject({
        status: 503,
        body: { error: { reason: "SERVICE_UNAVAILABLE", details: `${FULL}. Try again later.` } },
      });
      expect(refused.headers.get("retry-after")).toBe("5");
      expect(api.lines.join("\n")).toMatch(/PostgreSQL can't write: its disk is full: could not extend file/);
      // The request told it: nothing has to be asked.
      await expectFull(api);
      // One that was not told asks by itself, and reads go on.
      const webui = await startWebui(target);
      await expectFull(webui);
      expect((await ann.get("?status=queued&limit=1")).status).toBe(200);
      expect(await faultOf(target)).toBe("disk-full");

      disk.free();
      expect(await faultOf(target)).toBeNull();
      expect((await request(`${webui.url}/health`)).status).toBe(200);
      await ann.pin(cidOf("there is space again"));
      await expect
        .poll(async () => (await request(`${api.url}/health`)).status, { timeout: 40_000, interval: 500 })
        .toBe(200);
    }, 120_000);

    /** A database on a disk of its own that a test can fill. */
    async function onSmallDisk(context: TestContext) {
      const target = await postgres.createDatabase();
      const [row] = await sql<{ data_directory: string }>(postgres.target, "SHOW data_directory");
      const owner = statSync(row?.data_directory ?? "");
      const root = mkdtempSync(join(tmpdir(), "fula-node-full-"));
      if (process.getuid?.() !== 0) context.skip("only root can mount a small disk");
      try {
        execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m", "none", root], { stdio: "pipe" });
      } catch {
        expect(process.env["CI"], "CI must be able to mount a tmpfs").toBeUndefined();
        context.skip("this machine does not let us mount a tmpfs");
      }
      onTestFinished(async () => {
        await sql(postgres.target, `ALTER DATABASE ${target.database} SET TABLESPACE pg_default`);
        await sql(postgres.target, "DROP TABLESPACE small");
        execFileSync("umount", [root]);
        rmSync(root, { recursive: true });
      });
      chownSync(root, owner.uid, owner.gid);
      await sql(postgres.target, `CREATE TABLESPACE small LOCATION '${root}'`);
      await sql(postgres.target, `ALTER DATABASE ${target.database} SET TABLESPACE small`);
      const filler = join(root, "filler");
      return {
        target,
        disk: {
          fill() {
            for (const bytes of [1_048_576, 4_096])
              for (;;) {
                try {
                  appendFileSync(filler, Buffer.alloc(bytes));
                } catch (thrown) {
                  expect(thrown).toMatchObject({ code: "ENOSPC" });
                  break;
                }
              }
          },
          free: () => rmSync(filler),
        },
      };
    }
  },
  { template: migrate },
);

const LIMITS = { freeTierBytes: 1_000_000, maxPending: 100_000, deadlineSeconds: 3_600 };

/** Pages that have room take some requests yet. */
async function untilRefused(user: Awaited<ReturnType<typeof createUser>>) {
  for (let next = 0; next < 5_000; next += 1) {
    const meta = Object.fromEntries(
      Array.from({ length: 10 }, (_, at) => [`k${at}`, randomBytes(90).toString("hex")]),
    );
    const answered = await user.post({ cid: cidOf(`big ${next}`), meta });
    if (answered.status !== 202) return answered;
  }
  throw new Error("PostgreSQL stores on although its disk is full");
}

async function expectFull({ url }: Pick<PinningApi, "url">): Promise<void> {
  expect(await request(`${url}/health`)).toMatchObject({
    status: 503,
    body: { status: "degraded", checks: { postgres: { ok: false, error: FULL, remedy: REMEDY } } },
  });
}

/** What `status` asks, in a session that PostgreSQL keeps read-only. */
function faultOf(target: PostgresTarget) {
  const reader = createPostgres();
  return findWriteFault((text) => reader.query(target, text));
}
