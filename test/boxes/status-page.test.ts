import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { expectExit, skipped } from "../support/master-box.ts";
import { factsIn, statesIn } from "../services/status-page.ts";

const EDGE = ["--set", "PUBLIC_HOST=master", "--set", "EDGE_TLS=internal"];
/** Where the page is, for a browser on the machine, and for one elsewhere. */
const ADDRESSES = [
  { name: "here", origin: "http://127.0.0.1:3001", path: "/" },
  { name: "edge", origin: "https://master", path: "/status" },
] as const;
type Address = (typeof ADDRESSES)[number];

describe.skipIf(skipped !== undefined)("the status page of a master", () => {
  let box: Box;

  beforeAll(async () => {
    box = await Box.boot({ name: "master", image: "docker" });
    await installArtifact(box);
    expectExit(await fulaNode(box, [...FIRST_JOIN, ...EDGE]), 0);
  });
  afterAll(() => box?.destroy());

  const curl = ({ name, origin }: Address, path: string, options = "") =>
    box.run(
      `curl -sk -m 30 --resolve master:443:127.0.0.1 -b /root/${name}.jar -c /root/${name}.jar ${options} ${origin}${path}`,
    );
  /** The key goes through a file, as a browser keeps it out of the address. */
  const signIn = async (address: Address) => {
    await box.run(
      `sed -n 's/^SYSTEM_KEY=//p' /opt/fula-master/.env | tr -d '"\\n' | tr -d "'" > /root/key && chmod 600 /root/key`,
    );
    const form = `-H 'Origin: ${address.origin}' --data-urlencode key@/root/key -o /dev/null -w '%{http_code}'`;
    return (await curl(address, address.path, form)).stdout;
  };
  const page = async (address: Address) => (await curl(address, address.path)).stdout;

  test.each(ADDRESSES)("$name: a form without the key, all parts with it", async (address) => {
    expect(await page(address)).toContain('type="password"');
    expect(await page(address)).not.toContain("Parts");
    const forged = `-H 'X-System-Key: x' -H 'Origin: ${address.origin}' -d key=wrong -o /dev/null -w '%{http_code}'`;
    expect((await curl(address, address.path, forged)).stdout).toBe("403");
    expect(await signIn(address)).toBe("303");
    const text = await page(address);
    expect(statesIn(text)).toMatchObject({
      writer: "ok",
      database: "ok",
      "pinning API": "ok",
      "storage API": "ok",
      edge: "ok",
      snapshots: "ok",
    });
    expect(text).toContain("The newest snapshots");
    const head = (await curl(address, address.path, "-D - -o /dev/null")).stdout;
    expect(head).toMatch(/^content-security-policy: default-src 'none'; style-src 'sha256-/im);
  });

  test("sweeps and snapshots of this machine arrive in the container", async () => {
    expectExit(await fulaNode(box, ["sweep"]), 0);
    expectExit(await fulaNode(box, ["snapshot", "take"]), 0);
    const text = await page(ADDRESSES[0]);
    expect(statesIn(text)).toMatchObject({ sweep: "ok" });
    expect(factsIn(text)).toMatchObject({ "below minimum": "0" });
    expect(text).toContain("master (here)");
    expect(text).toContain('id="plot-snapshots-text"');
  });

  test.each([
    { down: ["postgres-pinning"], states: { database: "down", writer: "ok" } },
    { down: ["ipfs_cluster"], states: { database: "ok", writer: "down" } },
    {
      down: ["postgres-pinning", "ipfs_cluster", "fula-pinning-api"],
      states: { database: "down", writer: "down" },
    },
  ])("$down stopped: the page is there at both addresses, and says so", async ({ down, states }) => {
    await box.run(`docker stop -t 5 ${down.join(" ")}`);
    try {
      for (const address of ADDRESSES) {
        const text = await page(address);
        expect(statesIn(text)).toMatchObject(states);
        expect(text).toContain("The newest snapshots");
        expect(text).toContain('class="state unknown"');
      }
    } finally {
      await box.run(`docker start ${down.join(" ")}`);
    }
  });

  test("the session ends when the key is rotated", async () => {
    expect(await page(ADDRESSES[1])).toContain("Parts");
    await expect
      .poll(async () => statesIn(await page(ADDRESSES[1])), { timeout: 120_000, interval: 2_000 })
      .toMatchObject({ writer: "ok", database: "ok", "pinning API": "ok" });
    expectExit(await fulaNode(box, ["secret", "rotate", "system-key", "--yes"]), 0);
    for (const address of ADDRESSES) {
      expect(await page(address)).not.toContain("Parts");
      expect(await signIn(address)).toBe("303");
      expect(await page(address)).toContain("Parts");
    }
  });
});
