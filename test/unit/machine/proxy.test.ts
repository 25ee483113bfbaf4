import { describe, expect, it } from "vitest";
import { proxyFor } from "../../../src/machine/proxy.ts";

const URL_OF_POOL = "https://pool.example.org/api";

describe("the proxy for a URL", () => {
  it.each([
    [{ HTTPS_PROXY: "http://p:3128" }, URL_OF_POOL, "http://p:3128"],
    [{ https_proxy: "http://small:1", HTTPS_PROXY: "http://p:3128" }, URL_OF_POOL, "http://small:1"],
    [{ https_proxy: "", HTTPS_PROXY: "http://p:3128" }, URL_OF_POOL, null],
    [{ HTTP_PROXY: "http://p:3128" }, URL_OF_POOL, null],
    [{ HTTP_PROXY: "http://p:3128" }, "http://pool.example.org", "http://p:3128"],
    [{ ALL_PROXY: "p:3128" }, URL_OF_POOL, "http://p:3128"],
    [{ ALL_PROXY: "socks5://p:1080" }, URL_OF_POOL, null],
    [{ HTTPS_PROXY: "::nothing::" }, URL_OF_POOL, null],
    [{}, URL_OF_POOL, null],
  ])("with %o for %s is %s", (env, url, proxy) => {
    expect(proxyFor(url, env)).toBe(proxy);
  });

  it.each(["127.0.0.1", "127.9.9.9", "localhost", "db.localhost", "[::1]", "[::ffff:127.0.0.1]"])(
    "is none for %s, which is this machine",
    (host) => {
      expect(proxyFor(`http://${host}:5001/x`, { ALL_PROXY: "http://p:3128" })).toBeNull();
    },
  );

  it.each<[string, string, boolean]>([
    ["*", URL_OF_POOL, false],
    ["pool.example.org", URL_OF_POOL, false],
    ["example.org", URL_OF_POOL, false],
    [".example.org", URL_OF_POOL, false],
    ["*.example.org", URL_OF_POOL, false],
    ["ample.org", URL_OF_POOL, true],
    ["other.org, POOL.example.org:443", URL_OF_POOL, false],
    ["pool.example.org:8443", URL_OF_POOL, true],
    ["2001:db8::1", "https://[2001:db8::1]/x", false],
    ["[2001:db8::1]:443", "https://[2001:db8::1]/x", false],
    ["2001:db8::2", "https://[2001:db8::1]/x", true],
  ])("with NO_PROXY=%s for %s is used: %s", (noProxy, url, isUsed) => {
    expect(proxyFor(url, { HTTPS_PROXY: "http://p:3128", NO_PROXY: noProxy }) !== null).toBe(isUsed);
  });
});
