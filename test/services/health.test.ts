import { describe, expect, it } from "vitest";
import { createHealth, healthGauges } from "../../src/services/health.ts";
import { deferred } from "./serving.ts";

const never = (): Promise<void> => new Promise(() => {});

describe("createHealth", () => {
  it("is ok when every check passes", async () => {
    const health = createHealth({ version: "1.2.3", checks: { a: async () => {} }, log: () => {} });
    expect(await health()).toEqual({
      status: "ok",
      version: "1.2.3",
      checks: { a: { ok: true, ms: expect.any(Number) as number } },
    });
  });

  it("is degraded when one fails, and says which and why", async () => {
    const checks = {
      good: async () => {},
      bad: async () => {
        throw new Error("it rains");
      },
      worse: async () => {
        throw new AggregateError([new Error("refused ::1"), new Error("refused 127.0.0.1")], "");
      },
    };
    const { status, checks: results } = await createHealth({ version: "1", checks, log: () => {} })();
    expect(status).toBe("degraded");
    expect(results["good"]).toMatchObject({ ok: true });
    expect(results["bad"]).toMatchObject({ ok: false, error: "it rains" });
    expect(results["worse"]).toMatchObject({ ok: false, error: "refused ::1, refused 127.0.0.1" });
  });

  it("gives up a check that does not answer", async () => {
    const health = createHealth({ version: "1", checks: { stuck: never }, log: () => {}, timeoutMs: 20 });
    expect((await health()).checks["stuck"]).toMatchObject({
      ok: false,
      error: "no answer within 20 ms",
    });
  });

  it("asks once for all who ask meanwhile, and again for the next", async () => {
    let asked = 0;
    const gate = deferred<void>();
    const checks = {
      slow: async () => {
        asked += 1;
        await gate.promise;
      },
    };
    const health = createHealth({ version: "1", checks, log: () => {} });
    const together = [health(), health(), health()];
    gate.resolve();
    await Promise.all(together);
    expect(asked).toBe(1);
    await health();
    expect(asked).toBe(2);
  });

  it("gives the last result to the metrics, and asks nobody for it", async () => {
    let asked = 0;
    const world = { works: true };
    const checks = {
      postgres: async () => {
        asked += 1;
        if (!world.works) throw new Error("its disk is full");
      },
      cluster: async () => {},
    };
    const health = createHealth({ version: "1", checks, log: () => {} });
    const read = () => healthGauges(health).map((gauge) => gauge.read());
    expect(read()).toEqual([{}, 0]);
    const began = Date.now() / 1_000;
    await health();
    const [good, at] = read();
    expect(good).toEqual({ postgres: 1, cluster: 1 });
    expect(at).toBeGreaterThanOrEqual(began);
    world.works = false;
    await health();
    expect(read()[0]).toEqual({ postgres: 0, cluster: 1 });
    expect(asked).toBe(2);
  });

  it("logs a change, not every answer", async () => {
    const lines: string[] = [];
    const weather = { fine: true };
    const checks = {
      sky: async () => {
        if (!weather.fine) throw new Error("it rains");
      },
    };
    const health = createHealth({ version: "1", checks, log: (line) => lines.push(line) });
    for (const fine of [true, true, false, false, true]) {
      weather.fine = fine;
      await health();
    }
    expect(lines).toEqual(["health: ok", "health: degraded, sky: it rains", "health: ok"]);
  });
});
