import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { ALL_HEALTHY, expectExit, health, rejoin, skipped, stderrOf } from "../support/master-box.ts";

const EVERYTHING = ["/opt", "/etc", "/root/.docker", "/usr/local"] as const;
const NETWORK = "fula-master_default";
const BYSTANDER = "docker inspect --format '{{.Id}} {{.State.Status}} {{.RestartCount}}' bystander";

/** Docker's own packages, with the programs of the box: an engine that conflicts with Debian's, and the Compose plugin. */
const MAKE_DOCKER_CE = `
set -eu
mkdir -p /root/repo /root/ce/DEBIAN /root/ce/usr/bin /root/ce/usr/lib/systemd/system /root/plugin/DEBIAN
mkdir -p /root/plugin/usr/libexec/docker/cli-plugins
for program in dockerd docker docker-proxy docker-init; do
  found=$(command -v $program || ls /usr/libexec/docker/$program /usr/lib/docker/$program /usr/bin/tini-static 2>/dev/null | head -1)
  [ -z "$found" ] || cp "$(readlink -f "$found")" /root/ce/usr/bin/$program
done
sed 's#/usr/sbin/dockerd#/usr/bin/dockerd#' "$(systemctl show -p FragmentPath --value docker.service)" > /root/ce/usr/lib/systemd/system/docker.service
cp "$(systemctl show -p FragmentPath --value docker.socket)" /root/ce/usr/lib/systemd/system/docker.socket
cp "$(readlink -f "$(ls /usr/libexec/docker/cli-plugins/docker-compose /usr/lib/docker/cli-plugins/docker-compose 2>/dev/null | head -1)")" /root/plugin/usr/libexec/docker/cli-plugins/docker-compose
cat > /root/ce/DEBIAN/control <<END
Package: docker-ce
Version: 5:28.1.1-1
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Depends: containerd, iptables
Conflicts: docker.io, docker-cli
Replaces: docker.io, docker-cli
Description: stand-in for Docker's own engine
END
cat > /root/plugin/DEBIAN/control <<END
Package: docker-compose-plugin
Version: 2.30.0-1
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Conflicts: docker-compose
Description: stand-in for Docker's own Compose plugin
END
dpkg-deb -Znone --build /root/ce /root/repo/docker-ce.deb
dpkg-deb -Znone --build /root/plugin /root/docker-compose-plugin.deb
`;

const PUBLISH_PLUGIN = `
set -eu
mv /root/docker-compose-plugin.deb /root/repo/
cd /root/repo
size=$(stat -c %s docker-compose-plugin.deb); sum=$(sha256sum docker-compose-plugin.deb | cut -d' ' -f1)
{ dpkg-deb -f docker-compose-plugin.deb; echo "Filename: ./docker-compose-plugin.deb"; echo "Size: $size"; echo "SHA256: $sum"; } > Packages
echo 'deb [trusted=yes] file:/root/repo ./' > /etc/apt/sources.list.d/docker.list
echo 'deb [trusted=yes] http://127.0.0.1:9/dead stable main' > /etc/apt/sources.list.d/dead.list
`;

describe.skipIf(skipped !== undefined)("a box with things of others around a master", () => {
  let box: Box;

  beforeAll(async () => {
    box = await Box.boot({ name: "around", image: "docker" });
    await installArtifact(box);
    await box.run("docker run -d --name bystander --restart always node:26-trixie-slim sleep infinity");
  });
  afterAll(() => box?.destroy());

  test.each([
    ["network", `docker network create ${NETWORK}`, `docker network rm ${NETWORK}`, NETWORK],
    [
      "container",
      "docker create --name postgres-pinning node:26-trixie-slim",
      "docker rm postgres-pinning",
      "postgres-pinning",
    ],
    [
      "image",
      "docker tag node:26-trixie-slim fula-node:$(node -p 'require(\"/root/package/package.json\").version')",
      "docker rmi $(docker images -q fula-node --no-trunc --format '{{.Repository}}:{{.Tag}}')",
      "did not build it",
    ],
    [
      "cron file",
      "echo '0 0 * * * root true' > /etc/cron.d/fula-pinset-snapshot",
      "rm /etc/cron.d/fula-pinset-snapshot",
      "fula-pinset-snapshot",
    ],
  ])("a %s of its name: the join halts, and nothing was written", async (_kind, make, unmake, word) => {
    await box.run(make);
    const before = await box.snapshot(EVERYTHING);
    const result = await fulaNode(box, FIRST_JOIN);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain(word);
    expect(stderrOf(result)).not.toContain("is missing, but data");
    expect(await box.snapshot(EVERYTHING)).toEqual(before);
    await box.run(unmake);
  });

  test("without them it becomes a master", async () => {
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    expect(await health(box)).toMatchObject(ALL_HEALTHY);
  });

  test("every state of a container is repaired", async () => {
    await box.run(
      "docker pause fula-pinning-api && docker stop fula-pinning-webui && docker pause postgres-pinning",
    );
    const status = await fulaNode(box, ["join-as-master", "--dry-run"]);
    expectExit(status, 20);
    expect(status.stdout).toContain("unpause fula-pinning-api");
    expectExit(await rejoin(box), 0);
    expect(await health(box)).toMatchObject(ALL_HEALTHY);
    expect((await rejoin(box)).stdout).toContain("Nothing to do");
  });

  test("one that ends again and again is named, with its log, long before the deadline", async () => {
    await box.run("docker stop fula-pinning-webui");
    // The port is taken, so the service ends at each start.
    await box.run(
      "systemd-run --unit=thief node -e \"require('node:http').createServer((q,a)=>a.end()).listen(3001,'127.0.0.1')\"",
    );
    await box.run("for i in $(seq 50); do curl -s http://127.0.0.1:3001/ && break; sleep 0.1; done");
    try {
      const started = Date.now();
      const result = await rejoin(box, ["--ignore", "ports"]);
      expectExit(result, 27);
      expect(stderrOf(result)).toContain("fula-pinning-webui does not work");
      expect(stderrOf(result)).toContain("port 3001 is in use");
      expect(Date.now() - started).toBeLessThan(60_000);
    } finally {
      await box.run("systemctl stop thief");
    }
    expectExit(await rejoin(box), 0);
  });

  test("docker-ce without Compose: the engine stays, and so does the operator's container", async () => {
    await box.run(MAKE_DOCKER_CE);
    await box.run(
      "DEBIAN_FRONTEND=noninteractive apt-get remove -y docker-compose docker.io docker-cli && dpkg -i /root/repo/docker-ce.deb && systemctl daemon-reload && systemctl unmask docker.service docker.socket; systemctl restart docker",
    );
    expect((await box.exec("docker compose version")).exitCode).not.toBe(0);
    const before = (await box.run(BYSTANDER)).stdout;
    expect(before).toContain("running");
    const missing = await rejoin(box);
    expectExit(missing, 29);
    expect(stderrOf(missing)).toContain("docker-compose-plugin");
    expect((await box.run("dpkg-query -W -f '${db:Status-Status}' docker-ce")).stdout).toBe("installed");
    await box.run(PUBLISH_PLUGIN);
    const result = await rejoin(box);
    expectExit(result, 0);
    expect(
      (await box.run("dpkg-query -W -f '${db:Status-Status} ' docker-ce docker-compose-plugin")).stdout,
    ).toBe("installed installed ");
    expect((await box.run(BYSTANDER)).stdout).toBe(before);
    expect(await health(box)).toMatchObject(ALL_HEALTHY);
  });

  test("a leave removes what is ours, and nothing of others in our directories", async () => {
    const theirs = [
      "/opt/fula-master/notes.txt",
      "/opt/fula-master/cli/notes.txt",
      "/opt/fula-master/snapshots/mine/pinset.tar",
      "/opt/fula-writer/kubo/notes.txt",
      "/opt/fula-writer/kubo/blocks/on-another-disk/block",
      "/srv/theirs/linked.txt",
    ];
    await box.run(
      "mkdir -p /opt/fula-writer/kubo/blocks/on-another-disk && mount -t tmpfs none /opt/fula-writer/kubo/blocks/on-another-disk",
    );
    for (const path of theirs) await box.writeFile(path, "theirs\n");
    await box.run("ln -s /srv/theirs /opt/fula-master/restore");
    await box.run(`docker network connect ${NETWORK} bystander`);
    const before = (await box.run(BYSTANDER)).stdout;
    const result = await fulaNode(box, ["leave", "--purge", "all", "--confirm", "around", "--json"]);
    expectExit(result, 0);
    const { others, plan, changes } = JSON.parse(result.stdout) as {
      readonly others: readonly string[];
      readonly plan: readonly { readonly changes: readonly { readonly summary: string }[] }[];
      readonly changes: readonly { readonly change: { readonly summary: string } }[];
    };
    expect(others).toContain(`network ${NETWORK}, which container bystander uses`);
    expect(others).toContain("/opt/fula-writer/kubo/blocks/on-another-disk: a file system is mounted there");
    // kubo removes these itself when it stops. Everything else that was planned was done.
    const volatile = ["api", "gateway", "repo.lock"].map((name) => `remove /opt/fula-writer/kubo/${name}`);
    const summaries = changes.map(({ change }) => change.summary);
    const planned = plan.flatMap((one) => one.changes.map(({ summary }) => summary));
    expect(planned.filter((one) => !summaries.includes(one) && !volatile.includes(one))).toEqual([]);
    expect((await box.run(`find /opt /srv -type f | sort`)).stdout.split("\n")).toEqual(theirs.toSorted());
    expect((await box.run(BYSTANDER)).stdout).toBe(before);
    expect((await box.run("docker ps -a --format '{{.Names}}'")).stdout).toBe("bystander");
    expect((await box.run("docker volume ls -q")).stdout).toBe("");
  });
});
