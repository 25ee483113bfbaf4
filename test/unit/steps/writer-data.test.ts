import { describe, expect, it } from "vitest";
import { boxBefore, lookAt, stepOn } from "../../support/master-boxes.ts";

const LEFT = "/opt/fula-writer/ipfs-cluster/identity.json";

describe("data of a writer that nobody runs", () => {
  it("halts, names what lies there, and can be adopted by name", async () => {
    const host = await boxBefore("writer");
    host.files.put(LEFT, "{}", 0o600);
    const { finding, changes } = await lookAt(await stepOn(host, "writer"), host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(LEFT) as string,
      claim: { state: "drifted" },
    });
    expect(changes).toEqual([]);
  });

  it("is ours where one of our scripts lies beside it", async () => {
    const host = await boxBefore("writer");
    host.files.put(LEFT, "{}", 0o600);
    host.files.put("/opt/fula-writer/kubo-init.sh", "#!/bin/sh\n", 0o755);
    const { finding } = await lookAt(await stepOn(host, "writer"), host);
    expect(finding.state).toBe("absent");
  });
});
