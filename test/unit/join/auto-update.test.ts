import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import type { JoinFlags } from "../../../src/join/join-run.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const FLAGS: JoinFlags = {
  dryRun: true,
  yes: true,
  set: ["CLUSTERNAME=pool"],
  adopt: [],
  replace: [],
  ignore: ["clock"],
  provisionWriter: true,
};

function bareBox(): FakeStorage {
  const host = new FakeStorage();
  host.files.putDirectory("/run/systemd/system");
  return host;
}

async function dryRun(host: FakeStorage, set: readonly string[]): Promise<string> {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const reporter = createLines({ out: write, err: write }, () => 0);
  await joinAsMaster(
    { ...FLAGS, set: [...FLAGS.set, ...set] },
    worldOf(host, { pid: 7, hostname: "box", reporter }),
  );
  return lines.join(" ").replaceAll(/\s+/g, " ");
}

describe("AUTO_UPDATE", () => {
  it("is refused where fula-node builds every service, with the reason", async () => {
    const host = bareBox();
    await expect(dryRun(host, ["AUTO_UPDATE=true"])).rejects.toMatchObject({
      exit: "settings",
      problems: [{ subject: "AUTO_UPDATE", what: expect.stringContaining("could renew nothing here") }],
    });
    expect(host.writes).toEqual([]);
  });

  it("is offered where one of them has another image", async () => {
    await expect(dryRun(bareBox(), ["AUTO_UPDATE=true", "WEBUI_IMAGE=theirs/webui:1"])).resolves.toContain(
      "updater",
    );
    const gateway = bareBox();
    gateway.docker.putImage("fula-gateway:latest");
    await expect(dryRun(gateway, ["AUTO_UPDATE=true"])).resolves.toContain("updater");
  });

  it("that an earlier version saved is only warned about", async () => {
    const host = bareBox();
    host.files.put(LAYOUT.envFile, "AUTO_UPDATE=true\n", 0o600);
    const text = await dryRun(host, []);
    expect(text).toContain("AUTO_UPDATE=true in .env has no effect");
    expect(text).not.toContain("start pinning-api, webui, updater");
  });
});
