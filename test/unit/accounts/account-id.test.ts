import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { accountIdOf, readEmail } from "../../../src/accounts/account-id.ts";

describe("accountIdOf: letters' case makes no other account", () => {
  const alice = createHash("sha256").update("alice@example.org").digest("hex");
  const wallet = "0xabcdefabcdefabcdefabcdefabcdefabcdefabcd";

  it.each([
    ["Alice@Example.ORG", alice],
    ["alice@example.org", alice],
    [alice, alice],
    [alice.toUpperCase(), alice],
    [wallet, wallet],
    ["0xABCdefABCDEFabcdefabcdefabcdefabcdefabcD", wallet],
    ["drill-user", "drill-user"],
    ["Drill-User", "Drill-User"],
    ["", null],
    ["@", null],
    ["a b", null],
    ["a\u0000b", null],
    ["\ud800", null],
    ["a".repeat(65), null],
  ])("%j", (subject, account) => {
    expect(accountIdOf(subject)).toBe(account);
  });

  it("keeps an e-mail address and a wallet apart", () => {
    expect(accountIdOf(`${wallet}@example.org`)).not.toBe(accountIdOf(wallet));
  });
});

describe("readEmail", () => {
  it.each([
    ["Alice@Example.ORG", "alice@example.org"],
    ["a+b@c", "a+b@c"],
    ["a", null],
    ["", null],
    ["@", null],
    ["a@b@c", null],
    ["a b@c", null],
    ["a@b,c@d", null],
    [`${"a".repeat(250)}@b.org`, null],
  ])("%j", (text, email) => {
    expect(readEmail(text)).toBe(email);
  });
});
