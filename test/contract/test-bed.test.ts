import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const IMAGES = new URL("../images", import.meta.url).pathname;
const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn("skipped: what the test bed's engine takes for itself: no root");

describe.skipIf(!isRoot)("the test bed's engine", () => {
  let cache = "";
  beforeAll(async () => (cache = await mkdtemp(join(tmpdir(), "fula-node-bed-"))));
  afterAll(() => rm(cache, { recursive: true, force: true }));

  /** Runs bash with the engine's functions, in a network namespace where only these routes are. */
  async function withRoutes(
    routes: readonly string[],
    script: string,
  ): Promise<{ readonly exitCode?: number | undefined; readonly stdout: string; readonly stderr: string }> {
    const network = routes.map((route) => `ip route add ${route} dev lo`).join("\n");
    const sources = ["progress", "packages", "engine"]
      .map((part) => `source ${IMAGES}/lib/${part}.sh`)
      .join("\n");
    const whole = `set -euo pipefail\nip link set lo up\n${network}\n${sources}\n${script}`;
    return await execa("unshare", ["--net", "bash", "-c", whole], {
      env: { FULA_NODE_TEST_CACHE: cache },
      reject: false,
    });
  }

  it.each([
    ["an empty machine", [], "10.213"],
    ["a default route", ["default"], "10.213"],
    ["both halves of a VPN's default route", ["0.0.0.0/1", "128.0.0.0/1"], "10.213"],
    ["another engine's bridge", ["10.213.0.0/24"], "10.214"],
    ["a route that holds the whole network", ["10.212.0.0/14"], "10.216"],
    ["one host in it", ["10.213.7.7/32", "10.214.0.0/16"], "10.215"],
  ])("takes a network that is free: %s", async (_name, routes, expected) => {
    expect(await withRoutes(routes, "free_network")).toMatchObject({ exitCode: 0, stdout: expected });
  });

  it("takes none where none is free", async () => {
    const result = await withRoutes(["10.0.0.0/8"], "free_network");
    expect(result).toMatchObject({ exitCode: 1, stdout: "" });
    expect(result.stderr).toContain("no network 10.N.0.0/16 is free");
  });

  it("does not take another process for its own, whose number it had", async () => {
    const runs = "engine_runs && echo runs || echo does not run";
    const own = `mkdir -p "$ENGINE"; echo "$$ $(start_time $$)" >"$ENGINE/pid"; ${runs}`;
    expect((await withRoutes([], own)).stdout).toBe("runs");
    const other = `echo "$$ 1" >"$ENGINE/pid"; ${runs}`;
    expect((await withRoutes([], other)).stdout).toBe("does not run");
    expect((await withRoutes([], `rm "$ENGINE/pid"; ${runs}`)).stdout).toBe("does not run");
  });

  it("puts a finished thing in its place, and removes those of older inputs", async () => {
    const script = `mkdir -p "$STORE/thing-old" "$STORE/thing-new.part" "$STORE/things-other"
      store thing "$STORE/thing-new"; ls "$STORE"`;
    expect((await withRoutes([], script)).stdout).toBe("thing-new\nthings-other");
  });
});
