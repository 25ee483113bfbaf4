import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { createThrowaway } from "../../src/dumps/throwaway.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const IMAGE = `fula-node-test-throwaway:${process.pid}`;

describe.skipIf(!isThere)("a program in a throwaway container", () => {
  it("loses nothing of what it wrote, although it ended before anybody began to read", async () => {
    const engine = createThrowaway(process.env);
    makeTinyImage(IMAGE, []);
    const running = engine.attach({
      name: `fula-throwaway-${process.pid}`,
      mark: "land.fx.test=throwaway",
      image: docker("image", "inspect", "--format", "{{.Id}}", IMAGE),
      network: "none",
      memoryBytes: 64 * 1024 ** 2,
      environment: {},
      temporary: [],
      data: null,
      user: "",
      capabilities: [],
      entrypoint: "sh",
      command: ["-c", "cat"],
    });
    try {
      running.stdin.end("all of it");
      expect(await running.ended).toMatchObject({ exitCode: 0 });
      expect(await text(running.stdout)).toBe("all of it");
    } finally {
      await engine.removeMarked("land.fx.test=throwaway");
      docker("rmi", IMAGE);
    }
  });
});
