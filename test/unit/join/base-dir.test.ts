import { describe, expect, it } from "vitest";
import { resolveBaseDir } from "../../../src/join/base-dir.ts";
import { findInstalledNode, readInstalledMaster } from "../../../src/join/installed-node.ts";
import type { JoinDeps } from "../../../src/join/join-run.ts";
import { MASTER_BASE_DIR, masterLayout } from "../../../src/settings/layout.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { VERSION } from "../../support/fake-master.ts";
import { joinedBox } from "../../support/master-boxes.ts";

/** A box with a master in its default directory, and links to it and to nowhere. */
function box(): FakeHost {
  const host = new FakeHost();
  host.files.putDirectory("/opt/fula-master");
  host.files.putDirectory("/srv/node");
  host.files.putDirectory("/root");
  host.files.putLink("/opt/fula-master", "/root/link");
  host.files.putLink("/srv/node", "/root/node");
  host.files.putLink("/srv", "/root/srv");
  host.files.putLink("/gone", "/root/dangling");
  return host;
}

const resolve = (given: string | undefined, host = box()) => resolveBaseDir(host, given, MASTER_BASE_DIR);

describe("resolveBaseDir", () => {
  it.each([
    [undefined, "/opt/fula-master"],
    ["/opt/fula-master", "/opt/fula-master"],
    ["/opt/fula-master/", "/opt/fula-master"],
    ["//opt//fula-master//", "/opt/fula-master"],
    ["/opt/./fula-master/.", "/opt/fula-master"],
    ["/opt/other/../fula-master", "/opt/fula-master"],
    ["/root/link", "/opt/fula-master"],
    ["/root/link/", "/opt/fula-master"],
    ["../opt/fula-master", "/opt/fula-master"],
    ["link", "/opt/fula-master"],
    ["/root/node", "/srv/node"],
    ["/root/srv/not-yet/there", "/srv/not-yet/there"],
    ["/root/srv/../nodes", "/nodes"],
    ["/srv/new", "/srv/new"],
  ])("%s is %s", async (given, expected) => {
    expect(await resolve(given)).toBe(expected);
  });

  it.each(["/etc", "//etc", "/usr/", "/lib64", "/run/fula", "/root/../proc/1"])(
    "%s is refused",
    async (given) => {
      await expect(resolve(given)).rejects.toThrow("belongs to the system");
    },
  );

  it.each(["/opt/fula-master/", "//opt/fula-master", "/root/link"])(
    "gives every verb the same place for %s: settings, locks, cron lines",
    async (given) => {
      const host = await joinedBox();
      host.files.putLink("/opt/fula-master", "/root/link");
      const reporter = { listen: () => {} };
      const deps = { host, hostname: "box", environment: {}, version: VERSION, reporter };
      const { layout } = await readInstalledMaster(deps as unknown as JoinDeps, given);
      expect(layout).toEqual(masterLayout("/opt/fula-master"));
      expect((await findInstalledNode(host, given)).found.baseDir).toBe("/opt/fula-master");
    },
  );

  it("is the default directory's own name, also if that is a link", async () => {
    const host = new FakeHost();
    host.files.putDirectory("/data/fula");
    host.files.putLink("/data/fula", "/opt/fula-master");
    for (const given of [undefined, "/opt/fula-master/", "/data/fula", "/data/../data/fula/"])
      expect(await resolve(given, host)).toBe("/opt/fula-master");
  });

  it.each([
    ["", /must be an absolute path/],
    ["/", /must be an absolute path/],
    ["/srv/a b", /must be an absolute path/],
    ["/srv/p\u00f6l", /must be an absolute path/],
    ["/srv/x\0y", /must be an absolute path/],
    ["/root/dangling", /a symbolic link to a directory that does not exist/],
    ["/root/dangling/node", /a symbolic link to a directory that does not exist/],
  ])("refuses %j", async (given, what) => {
    await expect(resolve(given)).rejects.toMatchObject({
      exit: "usage",
      what: expect.stringMatching(what) as string,
      remedy: expect.stringContaining("/opt/fula-master") as string,
    });
  });

  it("needs no current directory for an absolute path, and says so for a relative one", async () => {
    const host = box();
    const realPath = host.files.realPath.bind(host.files);
    host.files.realPath = (path) => (path === "." ? Promise.resolve(null) : realPath(path));
    expect(await resolve("/opt/fula-master/", host)).toBe("/opt/fula-master");
    await expect(resolve("fula", host)).rejects.toMatchObject({
      exit: "usage",
      what: expect.stringContaining("the current directory, which no longer exists") as string,
    });
  });
});
