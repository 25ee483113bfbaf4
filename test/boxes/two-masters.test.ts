import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact, PROGRAM } from "../support/artifact.ts";
import { withoutData } from "../support/box-snapshot.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, psql, readEnv, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";
import { addContent, bootNode, peerId, pinset, untilStored } from "../support/storage-boxes.ts";

const ENV = "/opt/fula-master/.env";
const VAULT = `0x${"1".repeat(40)}`;
const EMAIL = "you@example.org";

interface Created {
  readonly id: string;
  readonly token: string;
  readonly fingerprint: string;
  readonly command: string;
}

/** Answers like a pooler that knows no start-up options: on 127.0.0.2, which is no address of this machine for fula-node. */
const POOLER = `require("node:net").createServer((client) => {
  const field = (code, text) => code + text + "\\0";
  const body = Buffer.from(field("S", "FATAL") + field("V", "FATAL") + field("C", "08P01") + field("M", "unsupported startup parameter: options") + "\\0");
  const head = Buffer.alloc(5); head.write("E"); head.writeInt32BE(body.length + 4, 1);
  client.on("error", () => {});
  client.once("data", () => client.end(Buffer.concat([head, body])));
}).listen(6432, "127.0.0.2")`;

describe.skipIf(skipped !== undefined)("two masters of one pool", () => {
  let network: string;
  let [first, second]: Box[] = [];
  let address: string;
  let created: Created;
  let printed: string;
  let firstId: string;

  /** Runs a command of the screen on a box, with the program that is unpacked there. */
  const type = (box: Box, command: string): Promise<ExecResult> =>
    box.exec(`cd /root && ${command.replace("npx fula-node", `node ${PROGRAM}`)}`);
  const createInvite = async (): Promise<Created> => {
    const result = await fulaNode(first!, ["invite", "create", "--master", "--json"]);
    expectExit(result, 0);
    return JSON.parse(result.stdout) as Created;
  };
  const joinWith = (one: Created, more = ""): Promise<ExecResult> =>
    type(second!, `${one.command.replace("@invite.txt", one.token)} --yes ${more}`);
  // Its own writer runs: kubo writes to its datastore without being asked.
  const look = async () => withoutData(await second!.snapshot());
  const masters = () => psql(first!, "SELECT count(*) FROM masters");
  const log = async (box: Box) => {
    const { stdout, stderr } = await box.run("docker logs fula-pinning-webui");
    return stdout + stderr;
  };

  beforeAll(async () => {
    network = await Box.network();
    [first, second] = await Promise.all([
      Box.boot({ name: "first", image: "docker", network }),
      bootNode("second", network),
    ]);
    await installArtifact(first);
    address = await first.address();
    await first.writeFile(ENV, `KUBO_PRIVATE_NETWORK=true\nVAULT_ADDRESS=${VAULT}\n`, 0o600);
    expectExit(await fulaNode(first, FIRST_JOIN), 0);
    firstId = (await readEnv(first))["MASTER_ID"] ?? "";
  });

  afterAll(async () => {
    for (const box of [first, second]) await box?.destroy();
    await Box.removeNetwork(network);
  });

  test("without an address for its database, the first one invites no master; a public one is refused", async () => {
    const result = await fulaNode(first!, ["invite", "create", "--master"]);
    expectExit(result, 21);
    expect(stderrOf(result)).toContain("POSTGRES_BIND is not set");
    for (const [value, why] of [
      ["0.0.0.0", "private IP address"],
      ["203.0.113.7", "private IP address"],
      ["10.99.99.99", "not an address of this machine"],
    ] as const) {
      const before = await watch(first!);
      const refused = await rejoin(first!, ["--set", `POSTGRES_BIND=${value}`]);
      expectExit(refused, 21);
      expect(stderrOf(refused)).toContain(why);
      expect(await watch(first!)).toEqual(before);
    }
  });

  test("with one, its database answers there over TLS only, and a second run changes nothing", async () => {
    const result = await rejoin(first!, ["--set", `POSTGRES_BIND=${address}`]);
    expectExit(result, 0);
    expect(stderrOf(result)).toContain("does not filter that port");
    const before = await watch(first!);
    const again = await rejoin(first!);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
    expect(stderrOf(again)).not.toContain("does not filter that port");
    expect(await watch(first!)).toEqual(before);

    const { POSTGRES_PASSWORD: password = "" } = await readEnv(first!);
    const ask = (box: Box, host: string, mode: string) =>
      box.exec(
        `docker run --rm --network host -e PGPASSWORD postgres:16-alpine psql "host=${host} sslmode=${mode} user=pinning_user dbname=pinning_service" -qtAc 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'`,
        { env: { PGPASSWORD: password } },
      );
    expect(await ask(second!, address, "require")).toMatchObject({ exitCode: 0, stdout: "t" });
    for (const [box, host] of [
      [second!, address],
      [first!, address],
      [first!, "127.0.0.1"],
    ] as const) {
      const plain = await ask(box, host, "disable");
      expect([host, plain.exitCode, plain.stderr]).toEqual([
        host,
        2,
        expect.stringMatching(/no pg_hba\.conf entry .* no encryption/),
      ]);
    }
    const modes = await first!.run("find /opt/fula-master/postgres-tls -type f -printf '%f %m %U\\n' | sort");
    expect(modes.stdout.split("\n")).toEqual([
      "ca.key 600 0",
      "ca.pem 644 0",
      "pg_hba.conf 644 0",
      "server.key 600 0",
      "server.pem 644 0",
    ]);
  });

  test("the screen of the invite has the commands for both machines, and no secret", async () => {
    const screen = await fulaNode(first!, ["invite", "create", "--master"]);
    expectExit(screen, 0);
    printed = screen.stdout;
    const env = await readEnv(first!);
    const secrets = [
      "POSTGRES_PASSWORD",
      "CLUSTER_SECRET",
      "JWT_SECRET",
      "SESSION_SECRET",
      "ENCRYPTION_KEY",
      "SYSTEM_KEY",
    ];
    const [token = ""] = printed.split("\n");
    const payload = Buffer.from(token.split(".")[2] ?? "", "base64url").toString();
    expect(JSON.parse(payload)).toMatchObject({
      cluster_name: "test-pool",
      database: { host: address, port: "5432", ssl: "verify-full" },
      settings: { VAULT_ADDRESS: VAULT, KUBO_PRIVATE_NETWORK: "true" },
    });
    for (const key of secrets) {
      expect(env[key]).toBeTruthy();
      expect(printed + payload).not.toContain(env[key]);
    }
    const extract = /^mkdir [^]*?done\)$/m.exec(printed)?.[0] ?? "";
    await first!.run(extract);
    for (const key of secrets) {
      const value = await first!.readFile(`/root/for-master/${key}`);
      expect(value.trim()).toBe(env[key]);
      await second!.writeFile(`/root/for-master/${key}`, value, 0o600);
    }
    created = await createInvite();
    const list = await fulaNode(first!, ["invite", "list"]);
    expect(list.stdout).toContain("for a master");
    const shown = await fulaNode(first!, ["invite", "show", created.token]);
    expect(shown.stdout).toMatch(/another master[^]*verify-full, with the CA in the invite/);
  });

  describe("what is refused, with nothing written on either machine", () => {
    const unchanged = async (attempt: () => Promise<ExecResult>, exit: number, why: RegExp) => {
      const [before, rows] = [await look(), await masters()];
      const result = await attempt();
      expectExit(result, exit);
      expect(stderrOf(result)).toMatch(why);
      expect(await look()).toEqual(before);
      expect(await masters()).toBe(rows);
    };

    test("another fingerprint, and an altered invite", async () => {
      await unchanged(
        () => joinWith({ ...created, command: created.command.replace(created.fingerprint, "0".repeat(16)) }),
        28,
        /is signed by the key/,
      );
      const [prefix, version, payload = "", signature] = created.token.split(".");
      const text = Buffer.from(payload, "base64url").toString().replace(address, "10.9.9.9");
      const token = [prefix, version, Buffer.from(text).toString("base64url"), signature].join(".");
      await unchanged(() => joinWith({ ...created, token }), 28, /the invite was altered/);
    });

    test("a revoked invite, and one that expired", async () => {
      const revoked = await createInvite();
      expectExit(await fulaNode(first!, ["invite", "revoke", revoked.id]), 0);
      await unchanged(() => joinWith(revoked), 28, /The invite was revoked at/);
      const expired = await createInvite();
      await psql(
        first!,
        `UPDATE invites SET expires_at = now() - interval '1 minute' WHERE id = '${expired.id}'`,
      );
      await unchanged(() => joinWith(expired), 28, /The invite expired at/);
    });

    test("the invite of a storage node, and a secret that is missing", async () => {
      const node = await fulaNode(first!, [
        "invite",
        "create",
        "--json",
        "--storage-api-url",
        "http://first:1",
      ]);
      const { token } = JSON.parse(node.stdout) as Created;
      await unchanged(() => joinWith({ ...created, token }), 2, /the invite of a storage node/);
      const command = created.command.replace(/ --set-file JWT_SECRET=\S+/, "");
      await unchanged(
        () => joinWith({ ...created, command }),
        21,
        /JWT_SECRET is missing: it must be the same/,
      );
    });

    test("a master of another pool", async () => {
      const plain = `node ${PROGRAM} join-as-master --yes --provision-writer --set CLUSTERNAME=other --set POSTGRES_HOST=${address} --set POSTGRES_SSL=require --set-file POSTGRES_PASSWORD=/root/for-master/POSTGRES_PASSWORD`;
      await unchanged(
        () => second!.exec(plain),
        23,
        /belongs to pool test-pool \(master first\), not to other/,
      );
    });

    test("a database of a newer fula-node", async () => {
      await psql(
        first!,
        'INSERT INTO fula_node.migrations SELECT (jsonb_populate_record(m, \'{"version": 999, "name": "999_future.sql"}\')).* FROM fula_node.migrations m ORDER BY version DESC LIMIT 1',
      );
      await unchanged(() => joinWith(created), 30, /newer/);
      await psql(first!, "DELETE FROM fula_node.migrations WHERE version = 999");
    });

    test("the identity of the first one", async () => {
      await unchanged(
        () => joinWith(created, `--set MASTER_ID=${firstId}`),
        23,
        /Another machine is this master \(MASTER_ID/,
      );
    });

    test("a database behind a pooler", async () => {
      await second!.run(["systemd-run", "--unit=pooler", "node", "-e", POOLER]);
      const plain = `node ${PROGRAM} join-as-master --yes --provision-writer --set CLUSTERNAME=test-pool --set POSTGRES_HOST=127.0.0.2 --set POSTGRES_PORT=6432 --set-file POSTGRES_PASSWORD=/root/for-master/POSTGRES_PASSWORD`;
      await unchanged(() => second!.exec(plain), 22, /A connection pooler answers at 127\.0\.0\.2:6432/);
    });
  });

  test("the printed command makes the second one", async () => {
    const command = /^npx fula-node join-as-master[^]*?SYSTEM_KEY$/m.exec(printed)?.[0] ?? "";
    await second!.writeFile("/root/invite.txt", printed, 0o600);
    const result = await type(second!, `${command} --yes`);
    expectExit(result, 0);
    expect(result.stdout).toContain(`fula-node trust add ${await peerId(second!)}`);
    const env = await readEnv(second!);
    expect(env).toMatchObject({
      POSTGRES_HOST: address,
      POSTGRES_SSL: "verify-full",
      VAULT_ADDRESS: VAULT,
      MASTER_CLUSTER_PEERIDS: await peerId(first!),
    });
    expect(env["MASTER_ID"]).not.toBe(firstId);
    expect((await fulaNode(first!, ["invite", "list"])).stdout).toContain("used by second");
    const rows = await psql(
      first!,
      "SELECT name FROM masters JOIN master_peers USING (pool, id) ORDER BY name",
    );
    expect(rows).toBe("first\nsecond");
    // The second one has no Postgres of its own.
    expect((await second!.run("docker ps -a --format '{{.Names}}'")).stdout).not.toContain("postgres");
  });

  test("an invite is for one master", async () => {
    const before = await look();
    const [token = ""] = printed.split("\n");
    const stranger = await type(
      second!,
      `${created.command.replace("@invite.txt", token)} --yes --base-dir /opt/fula-master --set MASTER_ID=${"c".repeat(32)}`,
    );
    expectExit(stranger, 28);
    expect(stderrOf(stranger)).toContain("The invite was used by another master (second)");
    expect(await look()).toEqual(before);
  });

  test("once the first one trusts it, too, a pin that either accepts is on both", async () => {
    const trusted = await fulaNode(first!, ["trust", "add", await peerId(second!), "--yes"]);
    expectExit(trusted, 0);
    expectExit(await fulaNode(first!, ["user", "create", "--email", EMAIL]), 0);
    const token = await fulaNode(first!, ["user", "token", "--email", EMAIL, "--json"]);
    const key = (JSON.parse(token.stdout) as { token: string }).token;
    const pinAt = async (box: Box, cid: string) => {
      const { stdout } = await box.run([
        "curl",
        "-s",
        "-H",
        `Authorization: Bearer ${key}`,
        "-H",
        "content-type: application/json",
        "-d",
        JSON.stringify({ cid }),
        "http://127.0.0.1:6000/pins",
      ]);
      return (JSON.parse(stdout) as { requestid: string }).requestid;
    };
    const listAt = async (box: Box) => {
      const { stdout } = await box.run([
        "curl",
        "-s",
        "-H",
        `Authorization: Bearer ${key}`,
        "http://127.0.0.1:6000/pins?status=queued,pinning,pinned",
      ]);
      return (JSON.parse(stdout) as { results: { requestid: string }[] }).results.map(
        ({ requestid }) => requestid,
      );
    };
    const cids = [await addContent(first!), await addContent(second!)];
    const [atSecond, atFirst] = [await pinAt(second!, cids[0] ?? ""), await pinAt(first!, cids[1] ?? "")];
    // At once: both read one database.
    for (const box of [first!, second!])
      expect((await listAt(box)).toSorted()).toEqual([atSecond, atFirst].toSorted());
    await untilStored([first!, second!], cids);
    expect(await pinset(second!)).toEqual(await pinset(first!));
  });

  test("one of them runs the billing", async () => {
    await eventually(
      "one leads and one stands by",
      async () => {
        const logs = await Promise.all([log(first!), log(second!)]);
        const count = (words: string) => logs.filter((text) => text.includes(words)).length;
        return count("acquired cron lease") === 1 && count("standby (lease held by another master)") === 1;
      },
      90_000,
    );
  });

  test("a second run changes nothing on either", async () => {
    for (const box of [first!, second!]) {
      const settled = await rejoin(box);
      expectExit(settled, 0);
      const before = await watch(box);
      const result = await rejoin(box);
      expectExit(result, 0);
      expect(result.stdout).toContain("Nothing to do");
      expect(await watch(box)).toEqual(before);
    }
  });

  test("another address gets another certificate of the same CA, and the second one goes on trusting it", async () => {
    const authority = await first!.readFile("/opt/fula-master/postgres-tls/ca.pem");
    await first!.run("ip address add 10.77.7.7/32 dev lo");
    expectExit(await rejoin(first!, ["--set", "POSTGRES_BIND=10.77.7.7"]), 0);
    expectExit(await rejoin(first!, ["--set", `POSTGRES_BIND=${address}`]), 0);
    expect(await first!.readFile("/opt/fula-master/postgres-tls/ca.pem")).toBe(authority);
    expectExit(await rejoin(second!), 0);
  });
});
