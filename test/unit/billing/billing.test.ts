import { describe, expect, it } from "vitest";
import { tariffOf } from "../../../src/billing/fee.ts";
import type { PostgresPool } from "../../../src/database/postgres.ts";
import { startBillingCrons } from "../../../src/services/billing-crons.ts";
import { BILLING } from "../../support/billing.ts";
import { readWebuiSettings, type WebuiSettings } from "../../../src/settings/services.ts";

describe("the tariff", () => {
  it.each([
    [3, "3000000000000000000"],
    [0.1, "100000000000000000"],
    [0.000_000_01, "10000000000"],
    [0, "0"],
    [123_456_789.123_456, "123456789123456000000000000"],
  ])("of %d FULA is exact in the smallest unit", (fulaPerGibMonth, units) => {
    expect(tariffOf({ freeTierBytes: 524_288_000, fulaPerGibMonth })).toEqual({
      freeBytes: "524288000",
      unitsPerGibMonth: units,
    });
  });
});

describe("the crons of the webui", () => {
  it.each([
    [null, "VAULT_ADDRESS is not set"],
    [{ ...BILLING, idempotent: false }, "BILLING_IDEMPOTENCY is false"],
  ])("with the settings %j touch no database", async (billing, why) => {
    const lines: string[] = [];
    const pool = {
      get query(): never {
        throw new Error("nothing is asked");
      },
    };
    const crons = startBillingCrons({ billing } as WebuiSettings, {
      pool: pool as unknown as PostgresPool,
      log: (line) => void lines.push(line),
    });
    await crons.close();
    expect(lines).toEqual([expect.stringContaining(why)]);
  });

  const SECRET = "a-secret-for-the-tests-only";
  const read = (environment: Readonly<Record<string, string>>) =>
    readWebuiSettings({
      NODE_ENV: "production",
      POSTGRES_PASSWORD: SECRET,
      JWT_SECRET: SECRET,
      SESSION_SECRET: SECRET,
      PINNING_SYSTEM_KEY: SECRET,
      VAULT_ADDRESS: `0x${"1".repeat(40)}`,
      ...environment,
    }).billing;

  it("run only in production with a VAULT_ADDRESS that is not zero", () => {
    expect(read({ NODE_ENV: "development" })).toBeNull();
    expect(read({ VAULT_ADDRESS: "" })).toBeNull();
    expect(read({ VAULT_ADDRESS: `0x${"0".repeat(40)}` })).toBeNull();
    expect(read({})).toEqual({
      lease: false,
      idempotent: false,
      deductionIntervalMs: 3_600_000,
      scannerIntervalMs: 600_000,
      vault: `0x${"1".repeat(40)}`,
      chains: [{ id: 8_453, url: "https://mainnet.base.org", confirmations: 150 }],
      proxy: null,
      bonuses: true,
    });
  });

  it("scan the chains that have an RPC URL", () => {
    const url = "https://node.example/v1/key";
    const { chains, proxy, bonuses, scannerIntervalMs } =
      read({
        BASE_RPC_URL: url,
        ETHEREUM_RPC_URL: url,
        SKALE_RPC_URL: url,
        RPC_PROXY_URL: "http://proxy.example:3128",
        REFERRAL_BONUSES_ENABLED: "false",
        SCANNER_INTERVAL_MS: "5000",
      }) ?? {};
    expect(chains?.map(({ id }) => id)).toEqual([1, 8_453, 2_046_399_126]);
    expect(proxy).toBe("http://proxy.example:3128");
    expect({ bonuses, scannerIntervalMs }).toEqual({ bonuses: false, scannerIntervalMs: 5_000 });
    expect(() => read({ SKALE_RPC_URL: "node.example" })).toThrow(/settings/);
  });

  it("take the flags and the interval as upstream does: exactly true", () => {
    expect(
      read({ CRON_LEADER_LEASE: "true", BILLING_IDEMPOTENCY: "true", DEDUCTION_INTERVAL_MS: "15000" }),
    ).toMatchObject({
      lease: true,
      idempotent: true,
      deductionIntervalMs: 15_000,
    });
    expect(() => read({ DEDUCTION_INTERVAL_MS: "10" })).toThrow(/settings/);
  });
});
