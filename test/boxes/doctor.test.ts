import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, PROGRAM } from "../support/artifact.ts";
import type { Box, ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootMaster, expectExit, health, psql, readEnv, skipped } from "../support/master-box.ts";

const HOME = "/opt/fula-master";
const EMAIL = "ann.user@mail.example.org";

interface Diagnosed {
  readonly durationMs: number;
  readonly exitCode: number;
  readonly findings: readonly {
    readonly id: string;
    readonly severity: string;
    readonly what: string;
    readonly remedy: string | null;
  }[];
}

describe.skipIf(skipped !== undefined)("doctor and logs on a master of its own", () => {
  let box: Box;

  /** What `doctor --json` says, and how long the whole command took. */
  const doctor = async (...args: readonly string[]): Promise<Diagnosed & { readonly tookMs: number }> => {
    const startMs = performance.now();
    const result = await fulaNode(box, ["doctor", "--json", ...args]);
    const tookMs = Math.round(performance.now() - startMs);
    expect(result.stdout, result.stderr).not.toBe("");
    const diagnosed = JSON.parse(result.stdout) as Diagnosed;
    expect(diagnosed.exitCode).toBe(result.exitCode);
    return { ...diagnosed, tookMs };
  };
  const wrongIn = ({ findings }: Diagnosed) =>
    new Map(
      findings
        .filter(({ severity }) => severity !== "ok")
        .map(({ id, severity, what, remedy }) => [id, `${severity}: ${what} -> ${remedy ?? ""}`] as const),
    );
  const untilHealthy = () =>
    eventually("every container is healthy", async () =>
      Object.values(await health(box)).every((state) => state === "running healthy"),
    );

  beforeAll(async () => {
    box = await bootMaster("doctor");
    await untilHealthy();
  });
  afterAll(() => box?.destroy());

  test("a healthy master has no error, and everything was asked", async () => {
    const diagnosed = await doctor();
    console.log(
      `doctor on a healthy master: ${diagnosed.durationMs} ms, ${diagnosed.tookMs} ms with its start`,
    );
    const serious = [...wrongIn(diagnosed)].filter(([, said]) => /^(?:error|unknown)/.test(said));
    expect(serious).toEqual([]);
    expect(diagnosed.findings.length).toBeGreaterThan(25);
    const text = await fulaNode(box, ["doctor"]);
    for (const line of text.stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  test("logs are merged by time, and have no secret", async () => {
    const { POSTGRES_PASSWORD: secret = "" } = await readEnv(box);
    expect(secret).not.toBe("");
    const said = `said ${secret} and ${Buffer.from(secret).toString("base64")} to ${EMAIL}`;
    await box.run(
      `echo "$(date -u +%FT%TZ) ${said}" >> ${HOME}/sweep.log; echo '  more of it' >> ${HOME}/sweep.log`,
    );
    const result = await fulaNode(box, ["logs", "--json"]);
    expectExit(result, 0);
    expect(result.stderr).toBe("");
    const lines = result.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { at: string; source: string; text: string });
    const sources = new Set(lines.map(({ source }) => source));
    for (const name of ["kubo", "ipfs-cluster", "postgres", "pinning-api", "storage-api", "sweep", "journal"])
      expect([...sources]).toContain(name);
    const times = lines.map(({ at }) => at);
    expect(times).toEqual(times.toSorted());
    const own = lines.filter(({ source }) => source === "sweep").map(({ text }) => text);
    expect(own.slice(-2)).toEqual(["said [redacted] and [redacted] to [redacted]", "  more of it"]);
    expect(result.stdout).not.toContain(secret);
    const few = await fulaNode(box, ["logs", "kubo", "journal", "--lines", "3"]);
    expect(few.stdout.trim().split("\n")).toHaveLength(6);
    const none = await fulaNode(box, ["logs", "sweep", "--since", "2099-01-01"]);
    expect([none.exitCode, none.stdout]).toEqual([0, ""]);
  });

  test("logs --follow shows each new line until a signal, and then ends well", async () => {
    const out = "/root/follow.out";
    const follow = `echo $$ >${out}.pid; exec node ${PROGRAM} logs sweep postgres --follow`;
    await box.run(
      `rm -f ${out}*; (setsid sh -c '${follow}' >${out} 2>${out}.err; echo $? >${out}.code) >/dev/null 2>&1 & sleep 0`,
    );
    const read = async (path: string) => (await box.exec(["cat", path])).stdout;
    await eventually("the old lines are there", async () => (await read(out)).includes("more of it"));
    await box.run(`echo 'fresh line' >> ${HOME}/sweep.log`);
    await eventually("the new line is there", async () => (await read(out)).includes("fresh line"));
    await psql(box, "SELECT 1/0").catch(() => {});
    await eventually("that of a container, too", async () => (await read(out)).includes("division by zero"));
    await box.run(["kill", "-INT", (await read(`${out}.pid`)).trim()]);
    await eventually("it has ended", async () => (await read(`${out}.code`)) !== "");
    expect([await read(`${out}.code`), await read(`${out}.err`)]).toEqual(["0", ""]);
  });

  test("half dead: each dead part is named with what to do, and --fix repairs what can be", async () => {
    await box.run("docker kill postgres-pinning ipfs_host");
    await box.run(
      `mount -t tmpfs -o size=8m small ${HOME}/snapshots && head -c 8m /dev/zero > ${HOME}/snapshots/full || true`,
    );
    const diagnosed = await doctor();
    console.log(
      `doctor on a half dead master: ${diagnosed.durationMs} ms, ${diagnosed.tookMs} ms with its start`,
    );
    const wrong = wrongIn(diagnosed);
    expect(wrong.get("database")).toMatch(/^error: .*-> fula-node join-as-master/);
    expect(wrong.get("writer")).toMatch(/^error: .*-> fula-node join-as-master/);
    expect(wrong.get("space")).toMatch(
      /^error: the disk of \/opt\/fula-master\/snapshots is nearly full.*-> du /,
    );
    expect(diagnosed.exitCode).toBe(27);
    await box.run(`umount ${HOME}/snapshots`);

    const refused: ExecResult = await fulaNode(box, ["doctor", "--fix"]);
    expectExit(refused, 22);
    const fixed = await doctor("--fix", "--yes");
    await untilHealthy();
    const left = wrongIn(await doctor());
    for (const id of ["database", "writer", "space"]) expect(left.get(id)).toBeUndefined();
    expect([...wrongIn(fixed).keys()]).not.toContain("fix");
  });

  test("while Docker does not run, doctor and logs say what they can", async () => {
    await box.run("systemctl stop docker.socket docker");
    const wrong = wrongIn(await doctor());
    expect(wrong.get("docker")).toMatch(/^error: does not run.*-> systemctl start docker$/);
    const result = await fulaNode(box, ["logs"]);
    expectExit(result, 0);
    expect(result.stdout).toContain("fresh line");
    expect(result.stderr).toContain("can't be read");
    await box.run("systemctl start docker");
    await untilHealthy();
  });

  test("--bundle has no secret of the node and no e-mail address", async () => {
    const env = await readEnv(box);
    const names = Object.keys(env).filter((key) => /PASSWORD|SECRET|_KEY|AUTH/.test(key));
    const secrets = [...names.map((key) => env[key] ?? ""), EMAIL].filter((value) => value.length > 7);
    expect(secrets.length).toBeGreaterThan(4);
    const key = (await box.readFile(`${HOME}/snapshot-ed25519.pem`)).split("\n")[1] ?? "";
    const said = [...secrets, key].flatMap((one) => [
      one,
      encodeURIComponent(one),
      Buffer.from(one).toString("base64"),
    ]);
    await box.run(["tee", "-a", `${HOME}/sweep.log`], { input: `${said.join("\n")}\n` });
    await fulaNode(box, ["doctor", "--bundle", "/root/support.tar.gz"]);
    expect((await box.run("stat -c '%a %U' /root/support.tar.gz")).stdout.trim()).toBe("600 root");
    await box.run("mkdir /root/unpacked && tar -xzf /root/support.tar.gz -C /root/unpacked");
    const { stdout } = await box.run("cd /root/unpacked && find . -type f -exec cat {} +");
    expect(stdout).toContain("[redacted]");
    expect(stdout).toContain("CLUSTERNAME=");
    for (const one of said) expect(stdout.includes(one), one.slice(0, 4)).toBe(false);
    const again = await fulaNode(box, ["doctor", "--bundle", "/root/support.tar.gz"]);
    expectExit(again, 2);
  });
});
