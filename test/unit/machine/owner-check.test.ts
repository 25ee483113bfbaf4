import { describe, expect, it } from "vitest";
import { findOwnerFaults, judgeOwner } from "../../../src/machine/owner-check.ts";
import { FakeHost } from "../../support/fake-host.ts";

const stat = (uid: number, mode: number, kind: "file" | "directory" | "symlink" = "file") => ({
  kind,
  uid,
  mode,
  sizeBytes: 0,
  modifiedAt: new Date(0),
});

describe("the owner rule", () => {
  it.each([0o600, 0o644, 0o755, 0o700, 0o4755])("lets root's path with mode %o pass", (mode) => {
    expect(judgeOwner("/x", stat(0, mode))).toBeNull();
  });

  it("names another owner, and the command against it", () => {
    expect(judgeOwner("/x", stat(1000, 0o600))).toMatchObject({
      sentence: "/x belongs to user 1000, not to root",
      repair: "chown root:root /x",
    });
  });

  it.each([
    [0o664, "its group can write to /x (mode 664)"],
    [0o602, "every user can write to /x (mode 602)"],
    [0o1777, "every user can write to /x (mode 1777)"],
  ])("names who can write to a path with mode %o", (mode, sentence) => {
    expect(judgeOwner("/x", stat(0, mode))).toMatchObject({ sentence, repair: "chmod go-w /x" });
  });

  it("judges a link by its owner only", () => {
    expect(judgeOwner("/x", stat(0, 0o777, "symlink"))).toBeNull();
    expect(judgeOwner("/x", stat(7, 0o777, "symlink"))).toMatchObject({ repair: "chown -h root:root /x" });
  });
});

describe("the walk from / to a path", () => {
  const host = () => {
    const { files } = new FakeHost();
    files.put("/opt/node/cli/run.js", "");
    return files;
  };
  const faultsOf = async (files: FakeHost["files"], path: string) =>
    (await findOwnerFaults(files, path)).map(({ repair }) => repair);

  it("finds nothing where root owns everything", async () => {
    expect(await faultsOf(host(), "/opt/node/cli/run.js")).toEqual([]);
  });

  it("finds every directory above, and the path itself, from the top down", async () => {
    const files = host();
    files.own("/opt/node", 1000);
    files.putDirectory("/opt", 0o777);
    files.put("/opt/node/cli/run.js", "", 0o666);
    expect(await faultsOf(files, "/opt/node/cli/run.js")).toEqual([
      "chmod go-w /opt",
      "chown root:root /opt/node",
      "chmod go-w /opt/node/cli/run.js",
    ]);
  });

  it("ends at the first part that does not exist", async () => {
    const files = host();
    files.putDirectory("/opt", 0o775);
    expect(await faultsOf(files, "/opt/other/cli/run.js")).toEqual(["chmod go-w /opt"]);
    expect(await faultsOf(files, "/srv/other")).toEqual([]);
  });

  it.each([
    ["an absolute link", "/home/me/tools", "/opt/node/current"],
    ["a relative link", "../../home/me/tools", "/opt/node/current"],
    ["a link that goes up behind another link", "cli/../../../home/me/tools", "/opt/node/current"],
  ])("follows %s to where it really leads", async (_what, target, link) => {
    const files = host();
    files.put("/home/me/tools/node", "");
    files.own("/home/me", 1000);
    files.putLink(target, link);
    expect(await faultsOf(files, `${link}/node`)).toEqual(["chown root:root /home/me"]);
  });

  it("goes up from the target of a link, not from the link", async () => {
    const files = host();
    files.put("/srv/deep/x", "");
    files.put("/srv/tool", "", 0o666);
    files.putLink("/srv/deep", "/opt/node/link");
    files.putLink("link/../tool", "/opt/node/tool");
    expect(await faultsOf(files, "/opt/node/tool")).toEqual(["chmod go-w /srv/tool"]);
  });

  it("judges the link itself by its owner", async () => {
    const files = host();
    files.putLink("cli", "/opt/node/current");
    files.own("/opt/node/current", 33);
    expect(await faultsOf(files, "/opt/node/current/run.js")).toEqual([
      "chown -h root:root /opt/node/current",
    ]);
  });

  it("lets root's own file in a directory with the sticky bit pass, but not the directory itself", async () => {
    const files = host();
    files.putDirectory("/tmp", 0o1777);
    files.put("/tmp/run.js", "", 0o755);
    expect(await faultsOf(files, "/tmp/run.js")).toEqual([]);
    files.own("/tmp/run.js", 1000);
    expect(await faultsOf(files, "/tmp/run.js")).toEqual(["chown root:root /tmp/run.js"]);
    expect(await faultsOf(files, "/tmp")).toEqual(["chmod go-w /tmp"]);
  });

  it("refuses a circle of links", async () => {
    const files = host();
    files.putLink("/opt/b", "/opt/a");
    files.putLink("/opt/a", "/opt/b");
    await expect(findOwnerFaults(files, "/opt/a/x")).rejects.toMatchObject({ exit: "unavailable" });
  });
});
