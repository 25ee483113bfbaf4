import { expect, it } from "vitest";
import { DRILL_LABEL } from "../../../src/settings/layout.ts";
import { leaveOn, leavingMaster } from "../../support/leave-boxes.ts";

const BASE = "/opt/fula-master";
const SCRATCH = "fula_drill_0123456789abcdef01234567";
const DIRECTORY = `${BASE}/fula-drill-sweep-0123456789abcdef`;

/** A master on which drills were killed, beside things that only look like theirs. */
async function afterKilledDrills() {
  const host = await leavingMaster();
  const labels = { [DRILL_LABEL]: "D9" };
  const anonymous = { "com.docker.volume.anonymous": "" };
  const mount = (name: string) => ({ name, source: "", destination: "/data", kind: "volume" }) as never;
  host.docker.putVolume("marked", labels);
  host.docker.putVolume("of-the-image", anonymous);
  host.docker.putVolume("theirs", anonymous);
  host.docker.putContainer("fula-drill-copy", { labels, mounts: [mount("marked"), mount("of-the-image")] });
  host.docker.putContainer("fula-drill-theirs", { mounts: [mount("theirs")] });
  host.scratches = [SCRATCH];
  host.files.put(`${DIRECTORY}/content.json`, "{}\n", 0o600);
  host.files.put(`${BASE}/fula-drill-notes/notes.txt`, "theirs\n");
  return host;
}

it("a leave removes what killed drills left, also without a purge, and nothing that only looks like it", async () => {
  const host = await afterKilledDrills();
  const { exit } = await leaveOn(host);
  expect(exit).toBe("ok");
  const { containers, volumes } = host.snapshot();
  expect(Object.keys(containers)).toEqual(["fula-drill-theirs"]);
  expect(Object.keys(volumes)).not.toContain("marked");
  expect(Object.keys(volumes)).not.toContain("of-the-image");
  expect(Object.keys(volumes)).toContain("theirs");
  expect(host.scratches).toEqual([]);
  expect([...host.files.tree.keys()].filter((path) => path.startsWith(DIRECTORY))).toEqual([]);
  expect(host.files.textOf(`${BASE}/fula-drill-notes/notes.txt`)).toBe("theirs\n");
  expect((await leaveOn(host)).lines).toEqual(["It left earlier. Nothing was changed."]);
});

it("a dry run names it", async () => {
  const host = await afterKilledDrills();
  const { data } = await leaveOn(host, { dryRun: true });
  const plan = JSON.stringify(data["plan"]);
  for (const name of ["fula-drill-copy", "marked", "of-the-image", SCRATCH, DIRECTORY])
    expect(plan).toContain(name);
});
