import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  describeDifferences,
  optionsKey,
  readWholePin,
  unknownFields,
  type WholePin,
} from "../../../src/cluster/pin.ts";
import { planPin } from "../../../src/cluster/pin-request.ts";
import { cidOf } from "../../support/cids.ts";
import { apiPin } from "../../support/cluster-double.ts";
import { anyPin } from "../../support/pin-arbitraries.ts";

const NOW = new Date("2026-11-21T20:00:00Z");
const CID = cidOf("request");
const PEER = "12D3KooWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const pinOf = (over: object): WholePin => readWholePin(apiPin({ cid: CID, ...over })) as WholePin;
const whyOf = (over: object): string => {
  const plan = planPin(pinOf(over), NOW);
  return plan.kind === "pin" ? plan.path : plan.why;
};

test("any pin is the same after it is written to a line and read", () => {
  fc.assert(
    fc.property(anyPin, (pin) => {
      const once = readWholePin(JSON.parse(JSON.stringify(apiPin(pin))));
      expect(once).toMatchObject({ cid: pin.cid, options: { name: pin["name"], mode: pin["mode"] } });
      expect(once?.options.metadata).toEqual(pin["metadata"] ?? {});
      expect(planPin(once as WholePin, NOW).kind).toBe("pin");
    }),
  );
});

test("the request has all options of the pin, in a query that every server decodes to the same values", () => {
  fc.assert(
    fc.property(anyPin, (pin) => {
      const plan = planPin(readWholePin(apiPin(pin)) as WholePin, NOW);
      expect(plan.kind).toBe("pin");
      if (plan.kind !== "pin") return;
      const url = new URL(plan.path, "http://cluster");
      expect(url.pathname).toBe(pin["mode"] === "direct" ? `/pins/ipfs/${pin.cid}` : `/pins/${pin.cid}`);
      expect(url.searchParams.get("name")).toBe(pin["name"]);
      for (const [key, value] of Object.entries((pin["metadata"] ?? {}) as Record<string, string>))
        expect(url.searchParams.get(`meta-${key}`)).toBe(value);
      expect(Number(url.searchParams.get("replication-min"))).toBe(pin["replication_factor_min"]);
    }),
  );
});

test("two pins have the same key only if nothing differs; the order of their metadata does not matter", () => {
  fc.assert(
    fc.property(anyPin, anyPin, (a, b) => {
      const [one, two] = [a, b].map((pin) => (readWholePin(apiPin(pin)) as WholePin).options);
      if (one === undefined || two === undefined) return;
      expect(optionsKey(one) === optionsKey(two)).toBe(describeDifferences(one, two).length === 0);
      const metadata = Object.fromEntries(Object.entries(one.metadata).toReversed());
      expect(optionsKey({ ...one, metadata })).toBe(optionsKey(one));
    }),
  );
});

describe("what a server would accept with wrong options is not sent", () => {
  test.each([
    [{ type: "shard-pin" }, "made by the cluster itself for sharded content"],
    [{ type: "from-the-future" }, "its type is not known to this tool"],
    [{ cid: "../../peers" }, "its CID can't be read"],
    [{ cid: "Qm?name=x" }, "its CID can't be read"],
    [{ expire_at: "2026-11-21T19:59:59Z" }, "its expiry has passed"],
    [{ expire_at: "tomorrow" }, "its expiry can't be read"],
    [{ replication_factor_min: 3, replication_factor_max: 2 }, "its replication factors are not valid"],
    [{ replication_factor_min: -1, replication_factor_max: 2 }, "its replication factors are not valid"],
    [{ replication_factor_min: 1.5, replication_factor_max: 2 }, "its replication factors are not valid"],
    [{ shard_size: 2 ** 60 }, "its shard size can't be sent"],
    [{ origins: ["/ip4/1.2.3.4/tcp/4001"] }, "its origins can't be sent"],
    [
      { origins: Array.from({ length: 11 }, () => `/ip4/1.2.3.4/tcp/1/p2p/${PEER}`) },
      "its origins can't be sent",
    ],
    [{ metadata: { "": "x" } }, "its metadata can't be sent"],
    [{ metadata: { a: 1 } }, "its metadata can't be sent"],
    [{ metadata: { a: "\ud800" } }, "its name or metadata is not valid Unicode"],
    [{ name: "\udfff" }, "its name or metadata is not valid Unicode"],
  ])("%o: %s", (over, why) => {
    expect(whyOf(over)).toBe(why);
  });

  test("CIDv0, and factors that the server chooses, are accepted", () => {
    const cid = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    expect(whyOf({ cid, replication_factor_min: 0, replication_factor_max: 0 })).toBe(
      `/pins/${cid}?name=&mode=recursive`,
    );
  });
});

test("missing, null and empty are the same; old CIDs are read; unknown fields are named", () => {
  const spare = readWholePin({ cid: { "/": CID } }) as WholePin;
  const full = readWholePin({
    cid: CID,
    metadata: {},
    origins: null,
    name: "",
    expire_at: null,
    new_field: 1,
  }) as WholePin;
  expect(spare.cid).toBe(CID);
  expect(optionsKey(spare.options)).toBe(optionsKey(full.options));
  expect(unknownFields({ cid: CID, new_field: 1, name: "" })).toEqual(["new_field"]);
  for (const value of [null, 1, "x", {}, { cid: 3 }, { cid: {} }]) expect(readWholePin(value)).toBeNull();
});
