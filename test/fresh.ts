import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { bedEnvironment, BED_STORE } from "./support/bed.ts";
import { Box } from "./support/box.ts";
import { diskOf } from "./support/box-engine.ts";

// npm run test:fresh [-- --debian 12|13] [--cold]: the first steps of a newcomer, on a machine without anything of the project:
// a plain box with its own engine. With --cold nothing is compiled or built yet; otherwise the box gets a copy of the store.

Object.assign(process.env, bedEnvironment());
const { values } = parseArgs({
  options: { debian: { type: "string", default: "13" }, cold: { type: "boolean", default: false } },
});
const { debian, cold } = values;
if (debian !== "12" && debian !== "13") throw new Error(`--debian is 12 or 13, not ${debian}.`);

const CACHE = "/var/cache/fula-node-test";
const HOUR_MS = 3_600_000;
/** Unit tests that use the real programs, and the box tests about the boxes themselves. */
const UNIT = [
  "test/contract/docker.test.ts",
  "test/contract/env-compose.test.ts",
  "test/unit/docker/compose-judge.test.ts",
];
const BOXES = ["test/boxes/harness.test.ts"];
/** Lists everything that the test bed could leave on a machine: its cache, its link, its control groups, its processes. */
const TRACES = `ls -d ${CACHE}* /tmp/fula-* /tmp/mmdebstrap* /tmp/go-build* 2>/dev/null
ip -o link | grep -F fnt-
awk '$5 ~ /fula-node.test/' /proc/self/mountinfo
ls -d /sys/fs/cgroup/fula-node-test-* /sys/fs/cgroup/*/fula-node-test-* 2>/dev/null
pgrep -af '[s]lirp4netns|[d]ocker-registry|[e]ngine/init|[f]ula-node-test/'
true`;

/**
 * Installs another engine, which uses the first addresses that the test bed would choose (this box is in 10.213.0.0/16), and
 * which has its data in another directory than by default.
 */
const OTHER_ENGINE = `mkdir -p /etc/docker /srv/tiny/bin
echo '{ "bip": "10.214.0.1/16", "data-root": "/srv/docker" }' >/etc/docker/daemon.json
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -qy --no-install-recommends docker.io iptables $(apt-cache search --names-only '^docker-cli$' | cut -d' ' -f1)
cp --dereference --parents /bin/sleep $(ldd /bin/sleep | grep -o '/[^ ]*') /srv/tiny
tar -C /srv/tiny -c . | docker import - tiny
docker run -d --name theirs --restart always -p 127.0.0.1:8080:80 tiny /bin/sleep 1000000`;
/** Prints the state of that engine, and what it needs from the machine. */
const OTHER_STATE = `docker inspect theirs && docker network ls && docker image ls -q && docker volume ls
iptables-save | sed 's/ \\[.*//; /^#/d'; ip -4 address; ip route; pgrep -a dockerd
sysctl net.ipv4.ip_forward net.ipv4.conf.all`;

const took: string[] = [];
const box = await Box.boot({
  name: `fresh-debian${debian}`,
  image: debian === "12" ? "debian12" : "plain",
  // A real disk, since an engine can't store its layers on the layers of another engine.
  disk: "/var/cache",
});
try {
  await bringCheckout();
  await bringStore();
  await step("npm run sandbox", "npm run sandbox");
  await step("npm run sandbox, again", "npm run sandbox");
  await step("a part of the unit tests", `npx vitest run --project unit ${UNIT.join(" ")}`);
  await step("a part of the tests on boxes", `npx vitest run --project boxes ${BOXES.join(" ")}`);
  await takeDown();

  await box.run(OTHER_ENGINE);
  const { stdout: before } = await box.run(OTHER_STATE);
  await bringStore();
  await step("npm run sandbox, next to another engine", "npm run sandbox");
  await takeDown();
  const { stdout: after } = await box.run(OTHER_STATE);
  if (after !== before)
    throw new Error(
      `The other engine has changed: no longer\n${linesWithout(before, after)}\nbut\n${linesWithout(after, before)}`,
    );
} finally {
  await box.destroy();
}
console.log(took.join("\n"));
console.log(`Debian ${debian}, ${cold ? "cold" : "with the store of this machine"}: all passed.`);

/** The lines of a text that the other text does not have. */
function linesWithout(text: string, other: string): string {
  const others = new Set(other.split("\n"));
  return text
    .split("\n")
    .filter((line) => !others.has(line))
    .join("\n");
}

async function takeDown(): Promise<void> {
  await step("npm run sandbox -- down", "npm run sandbox -- down");
  const { stdout: traces } = await box.run(TRACES);
  if (traces !== "") throw new Error(`npm run sandbox -- down left:\n${traces}`);
}

/** Copies the files of this checkout, and the certificate authorities that this machine trusts. */
async function bringCheckout(): Promise<void> {
  // Only boxes have this configuration: a newcomer's machine has no mirror of ours.
  await box.run(
    "rm -rf /etc/docker && ! command -v docker && ! command -v mmdebstrap && mkdir /root/fula-node",
  );
  const files = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    encoding: "utf8",
  });
  const there = files.split("\0").filter((file) => file !== "" && existsSync(file));
  const tar = execa("tar", ["--create", "--null", "--files-from=-"], {
    input: there.join("\0"),
    encoding: "buffer",
  });
  await tar.pipe("docker", ["exec", "-i", box.container, "tar", "--extract", "--directory=/root/fula-node"]);
  const authorities = process.env["NODE_EXTRA_CA_CERTS"];
  if (authorities !== undefined) await box.copyIn(authorities, "/etc/ssl/certs/ca-certificates.crt");
}

/** Copies this machine's store, unless the run is cold. */
async function bringStore(): Promise<void> {
  if (cold) return;
  const disk = join(await diskOf(box.container), "fula-node-test");
  await execa("mkdir", ["-p", disk]);
  // The content of the store is never changed, so hard links are enough.
  await execa("cp", ["-al", BED_STORE, disk]);
}

/** Runs a command, prints its output, and records its time. */
async function step(what: string, command: string): Promise<void> {
  console.log(`\nroot@${box.name}:~/fula-node# ${command}`);
  const began = performance.now();
  const env = "env CI=true NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt";
  const { exitCode, stdout, stderr } = await box.exec(`cd /root/fula-node && ${env} ${command}`, {
    timeoutMs: HOUR_MS,
  });
  console.log(stdout, stderr);
  if (exitCode !== 0) throw new Error(`${command} ended with exit code ${exitCode}.`);
  took.push(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${what}`);
}
