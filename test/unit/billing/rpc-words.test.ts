import { expect, test } from "vitest";
import { NOT_SHOWN, wordsFor } from "../../../src/billing/rpc-words.ts";

const KEY = "aB3dE6fG9hJ2kL5m";
const URLS = [
  `https://node.example/v2/${KEY}`,
  `https://node.example/rpc?apikey=${KEY}&net=1`,
  `https://user:${KEY}@node.example/`,
  `https://${KEY}:@node.example/`,
  `https://${KEY}.node.example/rpc`,
  `https://node.example/v2/${encodeURIComponent(`${KEY.slice(0, 9)}/+${KEY.slice(9)}`)}`,
];

test.each(URLS)("words that have a part of %s are not shown", (url) => {
  const words = wordsFor(url);
  const { pathname, search, username, password } = new URL(url);
  const login = Buffer.from(`${username}:${password}`).toString("base64");
  const part = url.startsWith("https://node.example/v2/aB3dE6fG9%") ? pathname.slice(4) : KEY;
  const asHex = Buffer.from(part).toString("hex").replaceAll(/../g, "%$&");
  const echoes = [
    part,
    part.toUpperCase(),
    decodeURIComponent(part),
    encodeURIComponent(part),
    asHex,
    asHex.replaceAll("%", "%25"),
    `${part.slice(0, 8)}...`,
    `...${part.slice(-8)}`,
    ...(pathname.length > 5
      ? [`Cannot POST ${pathname}`, JSON.stringify({ path: pathname }).replaceAll("/", "\\/")]
      : []),
    ...(search === "" ? [] : [`query ${search}`]),
    ...(username === "" ? [] : [`authorization: Basic ${login}`]),
  ];
  for (const echo of echoes)
    for (const text of [echo, `Cannot POST ${echo}`, `${"x".repeat(195)}${echo}`, `%zz%ff ${echo}`])
      expect(words(text)).toBe(NOT_SHOWN);
});

test("other words are shown, short, in one line and without addresses", () => {
  const words = wordsFor(`https://node.example/v2/${KEY}`);
  for (const text of [
    "query exceeds max block range",
    "v2 does not exist: 100 % wrong",
    "history has been pruned for this block",
    "invalid apikey",
  ])
    expect(words(text)).toBe(text);
  expect(words("see\nhttps://x.example/other now")).toBe("see URL now");
  expect(words("y".repeat(500))).toHaveLength(200);
  expect(wordsFor("http://127.0.0.1:8545")("it is busy: 127.0.0.1")).toBe("it is busy: 127.0.0.1");
});
