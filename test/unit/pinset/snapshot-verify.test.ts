import * as fc from "fast-check";
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { generateSigningKeyPem, parseSigningKey, readVerifyingKey } from "../../../src/machine/signing.ts";
import { listSnapshots } from "../../../src/pinset/snapshot/list.ts";
import { listSnapshotFiles } from "../../../src/pinset/snapshot/store.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { sha256, takeFrom, verifyPath } from "../../support/taken-snapshot.ts";

let double: ClusterDouble;
let deps: OperationDeps;
const names: string[] = [];
const file = (index: number, suffix: string): string =>
  join(deps.store.directory, `${names[index] ?? ""}${suffix}`);
const PARTS = [".ndjson.gz", ".manifest.json", ".manifest.sig"] as const;

beforeAll(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 60 }, (_, index) => ({
      cid: cidOf(`verify ${index}`),
      name: `näme ${index}`,
    })),
  });
  for (let turn = 0; turn < 3; turn++) names.push((await takeFrom(double.url, deps)).name);
});
afterAll(async () => {
  await double.stop();
  deps.clear();
});

/** The result of verify: "ok", or the exit and the message. */
async function verdict(path: string): Promise<{ exit: string; what: string }> {
  try {
    await verifyPath(path, deps.key);
    return { exit: "ok", what: "" };
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(OperatorError);
    return { exit: (thrown as OperatorError).exit, what: (thrown as OperatorError).what };
  }
}

/** Changes a file while the check runs. */
async function during<T>(
  path: string,
  change: (bytes: Buffer) => Buffer,
  check: () => Promise<T>,
): Promise<T> {
  const kept = readFileSync(path);
  writeFileSync(path, change(Buffer.from(kept)));
  try {
    return await check();
  } finally {
    writeFileSync(path, kept);
  }
}

describe("a snapshot of our layout", () => {
  test("is found by any of its files, or by its name", async () => {
    for (const suffix of ["", ...PARTS]) {
      const { count, order, keyId, manifest } = await verifyPath(file(1, suffix), deps.key);
      expect({ count, order: order.state, keyId }).toEqual({
        count: 60,
        order: "linked",
        keyId: deps.key.id,
      });
      expect(manifest?.name).toBe(names[1]);
    }
    expect((await verifyPath(file(0, ""), deps.key)).order.state).toBe("first");
  });

  test("a change of any byte of any of its files is refused as integrity", async () => {
    const sizes = PARTS.map((suffix) => readFileSync(file(1, suffix)).length);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0, 1, 2),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.integer({ min: 1, max: 255 }),
        async (part, share, difference) => {
          const at = Math.floor(share * (sizes[part] as number));
          const change = (bytes: Buffer): Buffer => {
            bytes[at] = (bytes[at] as number) ^ difference;
            return bytes;
          };
          const seen = await during(file(1, PARTS[part] ?? ""), change, () => verdict(file(1, "")));
          expect(seen.exit).toBe("integrity");
        },
      ),
      { numRuns: 300 },
    );
  });

  test.each(PARTS)("each of the first and last hundred bytes of %s matters", async (suffix) => {
    const size = readFileSync(file(1, suffix)).length;
    const places = Array.from({ length: size }, (_, at) => at).filter((at) => at < 100 || at >= size - 100);
    for (const at of places) {
      const flip = (bytes: Buffer): Buffer => {
        bytes[at] = (bytes[at] as number) ^ 1;
        return bytes;
      };
      expect(await during(file(1, suffix), flip, () => verdict(file(1, "")))).toMatchObject({
        exit: "integrity",
      });
    }
  });

  test.each(PARTS)("a truncated or extended %s is refused", async (suffix) => {
    const cut = await during(
      file(1, suffix),
      (bytes) => bytes.subarray(0, -1),
      () => verdict(file(1, "")),
    );
    const longer = await during(
      file(1, suffix),
      (bytes) => Buffer.concat([bytes, Buffer.from("\n")]),
      () => verdict(file(1, "")),
    );
    expect([cut.exit, longer.exit]).toEqual(["integrity", "integrity"]);
  });

  test.each(PARTS)("a missing %s is named", async (suffix) => {
    const path = file(1, suffix);
    renameSync(path, `${path}.away`);
    try {
      const seen = await verdict(file(1, suffix === ".ndjson.gz" ? ".manifest.json" : ".ndjson.gz"));
      expect(seen).toMatchObject({
        exit: "integrity",
        what: expect.stringContaining(`${suffix} is missing`),
      });
    } finally {
      renameSync(`${path}.away`, path);
    }
  });

  test("a body with its lines in another order is refused", async () => {
    const reorder = (bytes: Buffer): Buffer =>
      gzipSync(`${gunzipSync(bytes).toString("utf8").trimEnd().split("\n").toReversed().join("\n")}\n`);
    const seen = await during(file(1, ".ndjson.gz"), reorder, () => verdict(file(1, "")));
    expect(seen).toMatchObject({ exit: "integrity", what: expect.stringContaining("signed") });
  });

  test("bodies that were swapped, and files that were renamed, are refused", async () => {
    const other = readFileSync(file(2, ".ndjson.gz"));
    expect(
      (
        await during(
          file(1, ".ndjson.gz"),
          () => other,
          () => verdict(file(1, "")),
        )
      ).exit,
    ).toBe("ok");
    double.pins.set("more", { cid: cidOf("more") });
    const larger = (await takeFrom(double.url, deps)).file;
    const swapped = await during(
      file(1, ".ndjson.gz"),
      () => readFileSync(larger),
      () => verdict(file(1, "")),
    );
    expect(swapped).toMatchObject({ exit: "integrity", what: expect.stringContaining("bytes") });

    const alias = join(deps.store.directory, "pinset-20990101T000000Z");
    for (const suffix of PARTS) copyFileSync(file(1, suffix), `${alias}${suffix}`);
    expect(await verdict(alias)).toMatchObject({
      exit: "integrity",
      what: expect.stringContaining(`manifest of ${names[1]}`),
    });
    for (const suffix of PARTS) rmSync(`${alias}${suffix}`);
  });

  test("a signed manifest that replaces another one breaks the chain", async () => {
    const path = file(1, ".manifest.json");
    const forged = Buffer.from(readFileSync(path, "utf8").replace('"count": 60', '"count":  60'));
    const signature = deps.key.sign(forged);
    const seen = await during(
      path,
      () => forged,
      () =>
        during(
          file(1, ".manifest.sig"),
          () => Buffer.from(signature),
          async () => [await verdict(file(1, "")), await verdict(file(2, "")), await verdict(file(0, ""))],
        ),
    );
    expect(seen.map(({ exit }) => exit)).toEqual(["integrity", "integrity", "ok"]);
    expect(seen[0]?.what).toMatch(/chain .* refers to a different manifest/);
  });

  test("a newer format is reported as newer, if its signature is valid", async () => {
    const path = file(1, ".manifest.json");
    const newer = Buffer.from(readFileSync(path, "utf8").replace('"version": 1', '"version": 2'));
    expect(
      (
        await during(
          path,
          () => newer,
          () => verdict(file(1, "")),
        )
      ).exit,
    ).toBe("integrity");
    const signature = deps.key.sign(newer);
    const seen = await during(
      path,
      () => newer,
      () =>
        during(
          file(1, ".manifest.sig"),
          () => Buffer.from(signature),
          () => verdict(file(1, "")),
        ),
    );
    expect(seen.exit).toBe("newer");
  });

  test("another key is refused", async () => {
    const other = parseSigningKey(generateSigningKeyPem(), "other");
    await expect(verifyPath(file(1, ""), other)).rejects.toMatchObject({
      exit: "integrity",
      what: expect.stringContaining(other.id),
    });
  });

  test("a missing snapshot is a usage error", async () => {
    expect((await verdict(file(0, "x"))).exit).toBe("usage");
    expect((await verdict("/nowhere/pinset-1.ndjson.gz")).exit).toBe("usage");
  });

  test("the list has a verdict for each snapshot, and continues after a damaged one", async () => {
    const now = new Date(deps.clock.now().getTime() + 3_600_000);
    const list = async (): Promise<readonly string[]> => {
      const listed = await listSnapshots(await listSnapshotFiles(deps.store.directory), [deps.key], {
        sha256,
        now,
      });
      return listed.map(({ name, verdict: seen, order, sequence }) => `${sequence} ${name} ${seen} ${order}`);
    };
    const whole = await list();
    expect(whole.slice(0, 3)).toEqual([
      `1 ${names[0]} verified first`,
      `2 ${names[1]} verified linked`,
      `3 ${names[2]} verified linked`,
    ]);
    const damaged = await during(file(1, ".ndjson.gz"), (bytes) => bytes.subarray(1), list);
    expect(damaged).toContain(`null ${names[1]} integrity null`);
    expect(damaged).toContain(`3 ${names[2]} verified linked`);
  });
});

describe("a snapshot of upstream's layout, made with openssl alone", () => {
  const openssl = (...args: string[]): string => execFileSync("openssl", args, { cwd: deps.base }).toString();
  const layouts = {
    lines: (pins: readonly object[]) => pins.map((pin) => `${JSON.stringify(pin)}\n`).join(""),
    "indented objects, as ipfs-cluster-ctl prints them": (pins: readonly object[]) =>
      pins.map((pin) => `${JSON.stringify(pin, null, 4)}\n`).join(""),
    array: (pins: readonly object[]) => JSON.stringify(pins),
    "indented array": (pins: readonly object[]) => JSON.stringify(pins, null, 2),
  };
  const pins = Array.from({ length: 30 }, (_, index) => ({
    cid: index === 0 ? "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" : cidOf(`upstream ${index}`),
    name: `brackets ]}, "quotes" and \\ ${index}`,
    type: "pin",
  }));

  beforeAll(() => {
    openssl("genpkey", "-algorithm", "ed25519", "-out", "upstream.pem");
    openssl("pkey", "-in", "upstream.pem", "-pubout", "-out", "upstream.pub.pem");
  });

  test.each(Object.entries(layouts))("in the layout: %s", async (_, layout) => {
    for (const signature of ["pinset-20260101T060000Z.json.sig", "pinset-20260101T060000Z.sig"]) {
      const body = join(deps.base, "pinset-20260101T060000Z.json");
      writeFileSync(body, layout(pins));
      openssl("pkeyutl", "-sign", "-rawin", "-inkey", "upstream.pem", "-in", body, "-out", signature);
      const key = await readVerifyingKey([join(deps.base, "absent"), join(deps.base, "upstream.pub.pem")]);
      const { count, manifest } = await verifyPath(body, key);
      expect({ count, manifest }).toEqual({ count: 30, manifest: null });
      expect((await verifyPath(join(deps.base, "pinset-20260101T060000Z"), key)).count).toBe(30);
      const change = (bytes: Buffer): Buffer => Buffer.from(bytes.toString().replace("quotes", "quoteS"));
      await during(body, change, () =>
        expect(verifyPath(body, key)).rejects.toMatchObject({ exit: "integrity" }),
      );
      rmSync(join(deps.base, signature));
      await expect(verifyPath(body, key)).rejects.toMatchObject({
        exit: "integrity",
        what: expect.stringContaining("missing"),
      });
    }
  });

  test.each(["[{}", "[1]", '{"cid":"a"} x', '{"a":1}', "[{}]]"])("a signed %s is refused", async (text) => {
    const body = join(deps.base, "pinset-20260101T070000Z.json");
    writeFileSync(body, text);
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", "upstream.pem", "-in", body, "-out", `${body}.sig`);
    const key = await readVerifyingKey([join(deps.base, "upstream.pem")]);
    await expect(verifyPath(body, key)).rejects.toMatchObject({ exit: "integrity" });
  });
});

describe("the key", () => {
  test("is refused if other users can replace it, or can read the private key", async () => {
    const publicPem = join(deps.base, "loose.pub.pem");
    writeFileSync(publicPem, deps.key.publicPem, { mode: 0o644 });
    expect((await readVerifyingKey([publicPem])).id).toBe(deps.key.id);
    execFileSync("chmod", ["666", publicPem]);
    await expect(readVerifyingKey([publicPem])).rejects.toMatchObject({
      exit: "settings",
      what: expect.stringContaining("0666"),
    });
    const link = join(deps.base, "link.pub.pem");
    symlinkSync(publicPem, link);
    await expect(readVerifyingKey([link])).rejects.toMatchObject({ exit: "settings" });
    const privatePem = join(deps.base, "loose.pem");
    writeFileSync(privatePem, generateSigningKeyPem(), { mode: 0o644 });
    await expect(readVerifyingKey([privatePem])).rejects.toMatchObject({
      exit: "settings",
      what: expect.stringContaining("0644"),
    });
  });

  test("is reported as missing if it is missing", async () => {
    await expect(
      readVerifyingKey([join(deps.base, "none"), join(deps.base, "neither")]),
    ).rejects.toMatchObject({
      exit: "settings",
      what: expect.stringContaining("neither"),
    });
  });
});
