import { describe, expect, it } from "vitest";
import type { Change, Finding, StepSpec } from "../../../src/engine/step.ts";
import { OperatorError } from "../../../src/errors.ts";
import type { Host, HostReader } from "../../../src/host.ts";
import { FakeHost, Killed } from "../../support/fake-host.ts";
import { lawsOf, type StepCases, stepLaws } from "../../support/step-laws.ts";

const KEY = "/opt/sample/key";
const CONFIG = "/opt/sample/config";
const MARK = "# made by the sample step\n";

interface Seen {
  readonly hasKey: boolean;
  readonly config: string | null;
}
type SampleChange = Change & { readonly kind: "make-key" | "write-config" };

/** A step that keeps all laws: a secret in one file, and a config that must name the secret's length. */
class Sample implements StepSpec<Seen, SampleChange> {
  readonly id: string = "sample";
  readonly title = "Sample";
  readonly touches = "Nothing real.";

  async probe(host: HostReader): Promise<Finding<Seen>> {
    const config = await host.files.readText(CONFIG);
    const key = await host.files.stat(KEY);
    const evidence = { config: config ?? "absent", key: key === null ? "absent" : key.mode.toString(8) };
    const seen = { hasKey: key !== null, config };
    if (config !== null && !config.startsWith(MARK)) {
      return { state: "foreign", evidence, why: "The config is not ours.", remedy: "Move it away." };
    }
    const drift = [
      ...(seen.hasKey ? [] : ["the key is gone"]),
      ...(config === `${MARK}length=40\n` ? [] : ["the config differs"]),
    ];
    if (drift.length === 0) return { state: "ours", seen, evidence };
    if (!seen.hasKey && config === null) return { state: "absent", seen, evidence };
    return { state: "drifted", seen, drift, evidence };
  }

  plan(finding: Exclude<Finding<Seen>, { state: "foreign" }>): readonly SampleChange[] {
    if (finding.state === "ours") return [];
    return [
      ...(finding.seen.hasKey ? [] : [{ kind: "make-key", summary: "make the key" } as const]),
      { kind: "write-config", summary: "write the config" },
    ];
  }

  async apply(change: SampleChange, host: Host, _report: (line: string) => void): Promise<void> {
    if (change.kind === "make-key") {
      await host.files.writeAtomic(KEY, host.random.token(40), { mode: 0o600 });
    } else {
      await host.files.writeAtomic(CONFIG, `${MARK}length=40\n`, { mode: 0o644 });
    }
  }

  async verify(host: HostReader): Promise<void> {
    if ((await host.files.readText(KEY))?.length !== 40) {
      throw new OperatorError({ exit: "unhealthy", what: "The key does not work." });
    }
  }
}

function casesOf(makeStep: () => Sample): StepCases<Seen, SampleChange> {
  return {
    makeStep,
    absent: () => {},
    drifts: [{ name: "edited", arrange: (host) => host.files.put(CONFIG, MARK), names: /config differs/ }],
    foreign: [{ name: "foreign", arrange: (host) => host.files.put(CONFIG, "theirs"), why: /not ours/ }],
  };
}

/** The numbers of the laws that a step breaks. */
async function broken(cases: StepCases<Seen, SampleChange>): Promise<readonly number[]> {
  const numbers = new Set<number>();
  for (const law of lawsOf(cases)) {
    await law.run().catch(() => numbers.add(law.number));
  }
  return [...numbers];
}

stepLaws(
  "a sample",
  casesOf(() => new Sample()),
);

describe("a killed process", () => {
  it.each(["before", "during", "after"] as const)(
    "%s a write stays dead until it is revived",
    async (moment) => {
      const host = new FakeHost();
      host.killAt(2, moment);
      const write = (path: string) => host.files.writeAtomic(path, "text", { mode: 0o600 });
      await write("/one");
      await expect(write("/two")).rejects.toBeInstanceOf(Killed);
      await expect(write("/three")).rejects.toBeInstanceOf(Killed);
      await expect(host.files.readText("/one")).rejects.toBeInstanceOf(Killed);
      await expect(host.docker.containers()).rejects.toBeInstanceOf(Killed);
      expect(() => host.clock.now()).toThrow(Killed);
      expect(host.writes).toHaveLength(2);
      host.revive();
      expect(await host.files.readText("/one")).toBe("text");
      expect(await host.files.readText("/two")).toBe(moment === "after" ? "text" : null);
      expect(await host.files.list("/")).toHaveLength(moment === "before" ? 1 : 2);
      await write("/two");
      expect(await host.files.list("/")).toEqual(["one", "two"]);
    },
  );
});

describe("a step that breaks a law is caught", () => {
  it("1 a probe that writes", async () => {
    class Writing extends Sample {
      override async probe(host: HostReader) {
        await (host as Host).files.chmod("/", 0o755);
        return super.probe(host);
      }
    }
    expect(await broken(casesOf(() => new Writing()))).toContain(1);
  });

  it("2 a verify that accepts anything", async () => {
    class Blind extends Sample {
      override async verify() {}
    }
    expect(await broken(casesOf(() => new Blind()))).toEqual([2]);
  });

  it("2 and 4 an apply that does nothing for the config", async () => {
    class Idle extends Sample {
      override async apply(change: SampleChange, host: Host, report: (line: string) => void) {
        if (change.kind === "make-key") await super.apply(change, host, report);
      }
    }
    expect(await broken(casesOf(() => new Idle()))).toEqual(expect.arrayContaining([2, 4]));
  });

  it("3 a plan that is never empty", async () => {
    class Busy extends Sample {
      override plan(): readonly SampleChange[] {
        return [{ kind: "write-config", summary: "write the config" }];
      }
    }
    const cases = { ...casesOf(() => new Busy()), ours: makeOurs };
    expect(await broken(cases)).toContain(3);
  });

  it("4 a drift that is not named", async () => {
    class Vague extends Sample {
      override async probe(host: HostReader) {
        const finding = await super.probe(host);
        return finding.state === "drifted" ? { ...finding, drift: ["something"] } : finding;
      }
    }
    expect(await broken(casesOf(() => new Vague()))).toEqual([4]);
  });

  it("5 a foreign thing taken for drift", async () => {
    class Greedy extends Sample {
      override async probe(host: HostReader): Promise<Finding<Seen>> {
        const finding = await super.probe(host);
        if (finding.state !== "foreign") return finding;
        const seen = { hasKey: false, config: "theirs" };
        return { state: "drifted", seen, drift: ["the config differs"], evidence: finding.evidence };
      }
    }
    expect(await broken(casesOf(() => new Greedy()))).toEqual([5]);
  });

  it("6 a key that is made anew after a kill", async () => {
    class Minting extends Sample {
      override plan(finding: Exclude<Finding<Seen>, { state: "foreign" }>): readonly SampleChange[] {
        if (finding.state === "ours") return [];
        return [
          { kind: "make-key", summary: "make the key" },
          { kind: "write-config", summary: "write the config" },
        ];
      }
    }
    expect(await broken(casesOf(() => new Minting()))).toEqual([6]);
  });

  it("6 a kill that is swallowed", async () => {
    class Swallowing extends Sample {
      override async apply(change: SampleChange, host: Host, report: (line: string) => void) {
        await super.apply(change, host, report).catch(() => {});
      }
      override async verify(host: HostReader) {
        await super.verify(host).catch((thrown: unknown) => {
          if (thrown instanceof OperatorError) throw thrown;
        });
      }
      override async probe(host: HostReader): Promise<Finding<Seen>> {
        return super.probe(host).catch(() => ({
          state: "ours",
          seen: { hasKey: true, config: null },
          evidence: {},
        }));
      }
    }
    expect(await broken(casesOf(() => new Swallowing()))).toContain(6);
  });

  it("6 leftovers that a second run does not clear", async () => {
    class Littering extends Sample {
      override async apply(change: SampleChange, host: Host, report: (line: string) => void) {
        await host.files.writeAtomic(`/opt/sample/note-${host.random.hex(4)}`, "", { mode: 0o600 });
        await super.apply(change, host, report);
      }
    }
    expect(await broken(casesOf(() => new Littering()))).toEqual([6]);
  });

  it("7 a secret in a progress line", async () => {
    class Talking extends Sample {
      override async apply(change: SampleChange, host: Host, report: (line: string) => void) {
        await super.apply(change, host, report);
        report(`the key is ${await host.files.readText(KEY)}`);
      }
    }
    expect(await broken(casesOf(() => new Talking()))).toEqual([7]);
  });

  it("7 a secret in the cause of an error", async () => {
    class Blurting extends Sample {
      override async verify(host: HostReader) {
        const key = await host.files.readText(KEY);
        const cause = new Error(`bad key ${key}`);
        if (key === "hunter2hunter2hunter2") {
          throw new OperatorError({ exit: "unhealthy", what: "The key does not work.", cause });
        }
        await super.verify(host);
      }
    }
    const cases = {
      ...casesOf(() => new Blurting()),
      drifts: [
        {
          name: "a bad key",
          names: /config differs/,
          arrange: (host: Parameters<typeof makeOurs>[0]) => {
            host.files.put(KEY, "hunter2hunter2hunter2");
            host.files.put(CONFIG, MARK);
          },
        },
      ],
      secrets: () => ["hunter2hunter2hunter2"],
    };
    expect(await broken(cases)).toContain(7);
  });
});

function makeOurs(host: { files: { put(path: string, text: string, mode?: number): void } }): void {
  host.files.put(KEY, "x".repeat(40), 0o600);
  host.files.put(CONFIG, `${MARK}length=40\n`);
}
