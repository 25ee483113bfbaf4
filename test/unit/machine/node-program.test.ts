import { describe, expect, it } from "vitest";
import { checkCronLine, chooseNode, isLasting } from "../../../src/machine/node-program.ts";
import { runPreflight } from "../../../src/preflight/check.ts";
import { node } from "../../../src/preflight/machine.ts";
import { FakeHost } from "../../support/fake-host.ts";

const SCRIPT = "/root/package/bin/fula-node.js";
const NVM = "/root/.nvm/versions/node/v22.11.0/bin/node";

function box(...programs: readonly string[]): FakeHost {
  const host = new FakeHost();
  for (const path of programs) host.files.put(path, "", 0o755);
  return host;
}

const choose = (host: FakeHost, running: string) => chooseNode(host, { running, script: SCRIPT });

describe("the Node.js for cron", () => {
  it("is the running one at a path that outlasts an upgrade, and nothing is started for that", async () => {
    const host = box("/usr/bin/node");
    host.system.onTry = () => {
      throw new Error("it was started");
    };
    expect(await choose(host, "/usr/bin/node")).toEqual({
      path: "/usr/bin/node",
      isLasting: true,
      rejected: [],
    });
  });

  it.each(["/usr/bin/node", "/usr/local/bin/node"])(
    "is %s rather than one of nvm's, if it runs the script",
    async (path) => {
      const host = box(path, NVM);
      const tried: string[] = [];
      host.system.onTry = (argv) => (tried.push(argv.join(" ")), null);
      expect(await choose(host, NVM)).toMatchObject({ path, isLasting: true });
      expect(tried).toEqual([`${path} ${SCRIPT} --version`]);
    },
  );

  it("is the running one if the other one is too old", async () => {
    const host = box("/usr/bin/node", NVM);
    host.system.onTry = () => "fula-node needs Node.js 20.19 or newer; this is 18.19.0 (/usr/bin/node)";
    expect(await choose(host, NVM)).toEqual({
      path: NVM,
      isLasting: false,
      rejected: [{ path: "/usr/bin/node", why: expect.stringContaining("18.19.0"), repair: null }],
    });
  });

  it("is none if others can write to its directory", async () => {
    const running = "/home/me/.nvm/versions/node/v22.11.0/bin/node";
    const host = box(running);
    host.files.own("/home/me", 1000);
    expect(await choose(host, running)).toEqual({
      path: null,
      isLasting: false,
      rejected: [
        {
          path: running,
          why: "/home/me belongs to user 1000, not to root",
          repair: "chown root:root /home/me",
        },
      ],
    });
  });

  it("is not a link in a safe place to a program in an unsafe one", async () => {
    const host = box("/home/me/node", "/usr/bin/node");
    host.files.own("/home/me", 1000);
    host.files.drop("/usr/bin/node");
    host.files.putLink("/home/me/node", "/usr/bin/node");
    expect((await choose(host, NVM)).rejected).toMatchObject([{ path: "/usr/bin/node" }]);
  });

  it.each([
    ["/usr/bin/node", true],
    ["/usr/local/bin/node", true],
    ["/opt/node/bin/node", true],
    ["/snap/node/current/bin/node", true],
    [NVM, false],
    ["/root/.volta/tools/image/node/22.11.0/bin/node", false],
    ["/root/.asdf/installs/nodejs/22.11.0/bin/node", false],
    ["/root/.local/share/fnm/node-versions/v22.11.0/installation/bin/node", false],
    ["/run/user/0/fnm_multishells/1234_1700000000/bin/node", false],
    ["/usr/local/lib/nodejs/node-v22.11.0-linux-x64/bin/node", false],
    ["/snap/node/9999/bin/node", false],
  ])("outlasts an upgrade at %s: %s", (path, lasting) => {
    expect(isLasting(path)).toBe(lasting);
  });
});

describe("the preflight check of it", () => {
  const problemsOf = async (host: FakeHost, running: string | null) => {
    const cronNode = running === null ? null : { running, script: SCRIPT };
    const found = await runPreflight([node], host, { cronNode } as Parameters<typeof runPreflight>[2], []);
    return found.map(({ severity, what, remedy }) => `${severity} ${what} ${remedy}`);
  };
  const INSTALL = "Install Node.js as a package of the system (Debian 13: apt-get install nodejs)";

  it("passes for one that lasts, and for a node without cron jobs", async () => {
    expect(await problemsOf(box("/usr/bin/node"), "/usr/bin/node")).toEqual([]);
    expect(await problemsOf(box(), null)).toEqual([]);
  });

  it("warns of one that the next upgrade removes", async () => {
    expect(await problemsOf(box(NVM), NVM)).toEqual([
      `warning Cron will use ${NVM}, which goes away with the next upgrade of Node.js. ${INSTALL}, or run join-as-master again after each upgrade.`,
    ]);
  });

  it("fails with what to do if root's cron can use none", async () => {
    const host = box("/srv/node");
    host.files.putDirectory("/srv", 0o777);
    expect(await problemsOf(host, "/srv/node")).toEqual([
      `failure Root's cron can't use /srv/node: every user can write to /srv (mode 777). ${INSTALL}, or run chmod go-w /srv.`,
    ]);
  });
});

describe("a line of ours in /etc/cron.d, for status", () => {
  const PATH = "/etc/cron.d/fula-pinset-snapshot";
  const CURRENT = "/opt/fula-master/cli/current/bin/fula-node.js";
  const installed = (): FakeHost => {
    const host = box("/usr/bin/node", CURRENT);
    host.files.put(
      PATH,
      `# ours\nPATH=/usr/bin\n0 */6 * * * root /usr/bin/node ${CURRENT} snapshot take >> /log 2>&1\n`,
    );
    return host;
  };

  it("is ok while its program runs its script", async () => {
    const host = installed();
    const tried: string[] = [];
    host.system.onTry = (argv) => (tried.push(argv.join(" ")), null);
    expect(await checkCronLine(host, PATH)).toEqual({
      state: "ok",
      sentence: "/usr/bin/node runs it.",
      todo: null,
    });
    expect(tried).toEqual([`/usr/bin/node ${CURRENT} --version`]);
  });

  it.each<[string, (host: FakeHost) => void, string]>([
    ["is gone", ({ files }) => files.drop(PATH), `There is no ${PATH}.`],
    [
      "is ignored by cron",
      ({ files }) => files.own(PATH, 1000),
      `${PATH} belongs to user 1000, so cron ignores it.`,
    ],
    ["runs nothing", ({ files }) => files.put(PATH, "# ours\n"), `${PATH} runs nothing.`],
    ["has lost its script", ({ files }) => files.drop(CURRENT), `does not work: ${CURRENT} is missing.`],
    [
      "has lost its program",
      ({ system }) => {
        system.onTry = () => "/usr/bin/node is not installed";
      },
      "does not work: /usr/bin/node is not installed.",
    ],
  ])("is down if it %s", async (_what, arrange, sentence) => {
    const host = installed();
    arrange(host);
    expect(await checkCronLine(host, PATH)).toEqual({
      state: "down",
      sentence: expect.stringContaining(sentence),
      todo: expect.stringMatching(/^fula-node join-as-master(?:$|;)/),
    });
  });

  it.each(["/usr/bin", "/opt/fula-master"])(
    "needs attention if others can write to %s",
    async (directory) => {
      const host = installed();
      host.files.putDirectory(directory, 0o777);
      expect(await checkCronLine(host, PATH)).toEqual({
        state: "attention",
        sentence: `Root's cron runs what others can replace: every user can write to ${directory} (mode 777).`,
        todo: `Run chmod go-w ${directory}.`,
      });
    },
  );
});
