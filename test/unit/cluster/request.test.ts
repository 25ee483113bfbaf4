import { expect, test } from "vitest";
import { openConnection, refusedAnswer, routeOf, unreachable } from "../../../src/cluster/request.ts";

const CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

test.each([
  [`/pins/${CID}?local=true&name=secret`, "/pins/:cid"],
  [`/pins/${CID}/recover?local=true`, "/pins/:cid/recover"],
  ["/allocations/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "/allocations/:cid"],
  ["/id", "/id"],
])("%s is named %s", (path, named) => {
  expect(routeOf(path)).toBe(named);
});

test("an error of the cluster names what was asked, and not of which content", () => {
  const connection = openConnection({ endpoint: "http://127.0.0.1:9094" });
  const errors = [
    unreachable(connection, `GET ${routeOf(`/pins/${CID}`)}`, new Error("refused")),
    refusedAnswer(connection, `DELETE ${routeOf(`/pins/${CID}`)}`, { status: 500, text: "no" }),
  ];
  expect(errors.map(({ what }) => what)).toEqual([
    "The cluster at http://127.0.0.1:9094 did not answer (GET /pins/:cid): refused.",
    "The cluster at http://127.0.0.1:9094 answered 500 to DELETE /pins/:cid: no",
  ]);
  connection.client.close();
});
