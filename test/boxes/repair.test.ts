import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AS_OPERATOR, SERVICE_IMAGE } from "../support/artifact.ts";
import type { Box } from "../support/box.ts";
import {
  ALL_HEALTHY,
  bootMaster,
  clusterUrl,
  expectExit,
  health,
  psql,
  readEnv,
  rejoin,
  skipped,
  watch,
} from "../support/master-box.ts";
import { pinset } from "../support/storage-boxes.ts";

const ENV = "/opt/fula-master/.env";
describe.skipIf(skipped !== undefined)("a master that was damaged is mended by running again", () => {
  let box: Box;
  let env: Readonly<Record<string, string>>;

  beforeAll(async () => {
    box = await bootMaster("repair");
    env = await readEnv(box);
    await psql(box, "INSERT INTO users (username, password_hash) VALUES ('kept', 'x')");
  });
  afterAll(() => box?.destroy());

  async function mend(): Promise<string> {
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect(await readEnv(box)).toEqual(env);
    expect(await psql(box, "SELECT count(*) FROM users WHERE username = 'kept'")).toBe("1");
    expectExit(await rejoin(box, ["--dry-run"]), 0);
    return result.stdout.replaceAll(/\s+/g, " ");
  }

  async function startedAt(container: string): Promise<string> {
    return (await box.run(["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", container]))
      .stdout;
  }

  async function clusterPeer(): Promise<string> {
    const { id } = JSON.parse((await box.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id`)).stdout) as {
      id: string;
    };
    expect(id).toMatch(/^12D3KooW/);
    return id;
  }

  test("compose file deleted: written again, nothing restarted", async () => {
    const before = (await watch(box)).docker;
    await box.run("rm /opt/fula-master/docker-compose.yml");
    await mend();
    expect((await watch(box)).docker).toEqual(before);
  });

  test("compose file edited by hand: mended, and the edited one is kept beside it", async () => {
    await box.run("sed -i 's/restart: unless-stopped/restart: always/' /opt/fula-master/docker-compose.yml");
    const edited = await box.readFile("/opt/fula-master/docker-compose.yml");
    await mend();
    const kept = (await box.run("cat $(ls -t /opt/fula-master/docker-compose.yml.*.old | head -1)")).stdout;
    expect(kept.trimEnd()).toBe(edited.trimEnd());
  });

  test.each(["fula-pinning-webui", "ipfs_cluster", "postgres-pinning"])(
    "%s removed: made again, the others stay",
    async (name) => {
      const others = Object.keys(ALL_HEALTHY).filter((other) => other !== name);
      const before = await Promise.all(others.map(startedAt));
      const peer = await clusterPeer();
      await box.run(["docker", "rm", "--force", name]);
      await mend();
      expect(await Promise.all(others.map(startedAt))).toEqual(before);
      expect(await clusterPeer()).toBe(peer);
    },
  );

  test("a container stopped: started", async () => {
    await box.run(["docker", "stop", "fula-pinning-api", "ipfs_host"]);
    await mend();
  });

  test("a service that hangs, so that its healthcheck fails: restarted", async () => {
    await box.run("kill -STOP $(docker inspect --format '{{.State.Pid}}' fula-pinning-webui)");
    await expect
      .poll(async () => (await health(box))["fula-pinning-webui"], { timeout: 240_000, interval: 1000 })
      .toBe("running unhealthy");
    const before = await startedAt("fula-pinning-webui");
    expect(await mend()).toContain("restart fula-pinning-webui");
    expect(await startedAt("fula-pinning-webui")).not.toBe(before);
  });

  test("a default that data is bound to is missing from .env: it is there again; a comment and a key of the operator's own survive", async () => {
    await box.run(
      `sed -i '/^POSTGRES_IMAGE=/d' ${ENV} && printf '# mine\\nMY_OWN="a  b"  # note\\n' >> ${ENV}`,
    );
    env = { ...env, MY_OWN: '"a  b"  # note' };
    await mend();
    expect(await box.readFile(ENV)).toContain('# mine\nMY_OWN="a  b"  # note\n');
  });

  test("a setting changed in .env reaches its container, and only that is made anew", async () => {
    const database = await startedAt("postgres-pinning");
    await box.run(`sed -i 's/^# FREE_TIER_BYTES=.*/FREE_TIER_BYTES=1000/' ${ENV}`);
    env = { ...env, FREE_TIER_BYTES: "1000" };
    await mend();
    const { stdout } = await box.run("docker inspect --format '{{json .Config.Env}}' fula-pinning-webui");
    expect(JSON.parse(stdout)).toContain("FREE_TIER_BYTES=1000");
    expect(await startedAt("postgres-pinning")).toBe(database);
  });

  test("secrets missing from .env: recovered from our containers, and the run says so", async () => {
    await box.run(`sed -i '/^JWT_SECRET=/d; /^POSTGRES_PASSWORD=/d; /^SYSTEM_KEY=/d' ${ENV}`);
    const stderrOf = await mend();
    expect(stderrOf).toContain("JWT_SECRET from fula-pinning-");
    expect(stderrOf).toMatch(/Done in .+: 1 change, everything works\./);
    expect(stderrOf).toContain("POSTGRES_PASSWORD from postgres-pinning");
  });

  test(".env lost altogether, containers standing: every secret is recovered", async () => {
    await box.run(`rm ${ENV}`);
    const result = await rejoin(box, ["--set", "CLUSTERNAME=test-pool"]);
    expectExit(result, 0);
    const again = await readEnv(box);
    for (const key of [
      "POSTGRES_PASSWORD",
      "SYSTEM_KEY",
      "JWT_SECRET",
      "SESSION_SECRET",
      "ENCRYPTION_KEY",
      "CLUSTER_SECRET",
    ]) {
      expect(again[key], key).toBe(env[key]);
    }
    expect(await health(box)).toEqual(ALL_HEALTHY);
    env = again;
  });

  test("a power cut took what the first start of Postgres added to pg_hba.conf: added again, and nothing else of it changes", async () => {
    const rules = "/var/lib/docker/volumes/fula-master_pgdata/_data/pg_hba.conf";
    const before = await box.run(`stat -c '%u %a' ${rules} && cat ${rules}`);
    await box.run(`sed -i '/^host all all all/d' ${rules} && docker restart postgres-pinning`);
    const shut = await box.exec(`docker logs --since 1m postgres-pinning 2>&1 | grep -c pg_hba`);
    expect(shut.stdout).not.toBe("");
    expect(await mend()).toContain("add to pg_hba.conf what the first start of Postgres wrote");
    const after = await box.run(`stat -c '%u %a' ${rules} && cat ${rules}`);
    const lines = (text: string) => text.split("\n").filter((line) => line !== "");
    expect(lines(after.stdout)).toEqual(lines(before.stdout));
    // Added, but the run was killed before the server read it.
    await box.run(
      `sed -i '/^host all all all/d' ${rules} && docker restart postgres-pinning && until docker exec postgres-pinning pg_isready -q; do sleep 0.1; done && echo 'host all all all scram-sha-256' >>${rules}`,
    );
    expect(await mend()).toContain("add to pg_hba.conf what the first start of Postgres wrote");
    expect((await box.run(`grep -c '^host all all all' ${rules}`)).stdout).toBe("1");
    // Rules of the operator stay, and the refusal says where to look.
    await box.run(
      `sed -i 's/^host all all all.*/host all all 203.0.113.0\\/24 scram-sha-256/' ${rules} && docker restart postgres-pinning`,
    );
    const refused = await rejoin(box);
    expectExit(refused, 27);
    expect(refused.stderr.replaceAll(/\s+/g, " ")).toContain("allow this machine in its pg_hba.conf");
    expect((await box.run(`cat ${rules}`)).stdout).not.toMatch(/^host all all all/m);
    await box.run(
      `sed -i 's/^host all all 203.*/host all all all scram-sha-256/' ${rules} && docker restart postgres-pinning`,
    );
    await mend();
  });

  test("cron files gone and edited: written again", async () => {
    const wanted = await box.readFile("/etc/cron.d/fula-replication-sweep");
    await box.run(
      "rm /etc/cron.d/fula-pinset-snapshot && sed -i 's/^\\*\\/30/*\\/5/' /etc/cron.d/fula-replication-sweep",
    );
    await mend();
    expect(await box.readFile("/etc/cron.d/fula-replication-sweep")).toBe(wanted);
    await box.run("test -s /etc/cron.d/fula-pinset-snapshot");
  });

  test("cron stopped: started", async () => {
    await box.run("systemctl stop cron");
    await mend();
    await box.run("systemctl is-active cron");
  });

  test("the engine stopped: started, and everything with it", async () => {
    await box.run("systemctl stop docker.socket docker");
    await mend();
  });

  test("the service image and the installed CLI gone: made again", async () => {
    await box.run(
      `docker rm -f fula-pinning-api && docker image rm -f ${SERVICE_IMAGE} && rm -r /opt/fula-master/cli`,
    );
    await mend();
  });

  test("ipfs-cluster killed right after it took pins: it comes back by itself, with every one", async () => {
    const files = "mkdir /tmp/pins && for i in $(seq 50); do echo pin $i >/tmp/pins/$i; done";
    const add = "ipfs --api=/ip4/127.0.0.1/tcp/5001 add -r -q --cid-version=1 --pin=false /tmp/pins";
    const { stdout } = await box.run(["docker", "exec", "ipfs_host", "sh", "-c", `${files} && ${add}`]);
    const cids = stdout.split("\n").slice(0, 50);
    expect(new Set(cids).size).toBe(50);
    const url = await clusterUrl(box);
    const posts = cids.map(
      (cid) =>
        `url = "${url}/pins/${cid}"\nrequest = "POST"\noutput = "/dev/null"\nwrite-out = "%{http_code}\\n"`,
    );
    const [before, peer, started] = [await pinset(box), await clusterPeer(), await startedAt("ipfs_cluster")];
    const restarts = async (): Promise<string> =>
      (await box.run("docker inspect --format '{{.RestartCount}}' ipfs_cluster")).stdout;
    const restartsBefore = await restarts();

    const answers = await box.run("curl -s -K - && kill -KILL $(pidof ipfs-cluster-service)", {
      input: posts.join("\nnext\n"),
    });
    expect(answers.stdout.split("\n")).toEqual(cids.map(() => "200"));
    await expect.poll(restarts, { timeout: 60_000, interval: 200 }).toBe(String(Number(restartsBefore) + 1));
    await expect.poll(() => health(box), { timeout: 120_000, interval: 1000 }).toEqual(ALL_HEALTHY);
    expect(await startedAt("ipfs_cluster")).not.toBe(started);
    expect(await clusterPeer()).toBe(peer);
    expect(await pinset(box)).toEqual(new Set([...before, ...cids]));
  });

  test("a power cut: the box comes back by itself, and a run finds nothing to do", async () => {
    await box.kill();
    await box.start();
    await expect.poll(() => health(box), { timeout: 120_000, interval: 1000 }).toEqual(ALL_HEALTHY);
    expect(await mend()).toContain("Nothing to do");
  });
});
