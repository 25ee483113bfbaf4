import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { BILLING } from "../support/billing.ts";
import { noBrowser, openTab, type Tab } from "../support/chromium.ts";
import { migrate } from "../support/names-database.ts";
import { nodeId, writeRecords } from "../support/page-records.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { freePort } from "../support/free-port.ts";
import { sql } from "../support/postgres-server.ts";
import { recordsDir, signIn } from "./status-page.ts";
import { startWebui, STATUS_PAGE } from "./web-api.ts";

if (noBrowser !== undefined) console.warn(`skipped: the status page in a browser: ${noBrowser}`);

/** Where to keep the pictures; without it they are only taken. */
const PICTURES = process.env["STATUS_PAGE_PICTURES"];
const SCREENS = [
  { width: 375, scheme: "light" },
  { width: 375, scheme: "dark" },
  { width: 1_280, scheme: "light" },
  { width: 1_280, scheme: "dark" },
] as const;

describe.skipIf(noBrowser !== undefined)("the status page in a browser", () => {
  describeOnPostgres(
    "with a real PostgreSQL",
    (postgres) => {
      test.each(SCREENS)(
        "$width pixels, $scheme: fits, can be read, and nothing complains",
        async (screen) => {
          const target = await postgres.createDatabase();
          await seed(target);
          const whole = await startPage(target, true);
          // The cluster, kubo and the pinning API do not answer.
          const half = await startPage(target, false);
          const tab = await openTab();
          await set(tab, screen);
          const look = async (name: string) => {
            const wide = await tab.value<number>("document.documentElement.scrollWidth");
            expect([name, wide]).toEqual([name, screen.width]);
            expect([name, await tab.value<unknown>(LOW_CONTRAST)]).toEqual([name, []]);
            await keep(await tab.picture(), `${name}-${screen.width}-${screen.scheme}`);
          };
          for (const [name, url] of [
            ["whole", whole],
            ["half", half],
          ] as const) {
            // The port is no part of what a cookie is for.
            await tab.send("Network.clearBrowserCookies");
            await tab.open(url);
            await look(`${name}-form`);
            await enter(tab, STATUS_PAGE.systemKey);
            expect(await tab.value("document.querySelector('h1').textContent")).toBe("Master of pool pool-a");
            await look(name);
          }
          expect(tab.complaints).toEqual([]);
        },
      );

      test("works without script and with the keyboard alone, in the order of the page", async () => {
        const target = await postgres.createDatabase();
        const url = await startPage(target, false);
        const tab = await openTab();
        await set(tab, { width: 1_280, scheme: "light" });
        await tab.send("Emulation.setScriptExecutionDisabled", { value: true });
        await tab.open(url);
        await enter(tab, STATUS_PAGE.systemKey);
        const focused: string[] = [];
        for (let turn = 0; turn < 4; turn += 1) {
          await tab.press("Tab");
          focused.push(await tab.value(FOCUSED));
        }
        expect(focused).toEqual([
          "a To the parts",
          "a Look again",
          "button Sign out",
          expect.stringMatching(/^div /),
        ]);
        expect(await tab.value<string>(OUTLINE)).toMatch(/^solid 3px/);
        await tab.press("Tab", SHIFT);
        expect(await tab.value(FOCUSED)).toBe("button Sign out");
        await tab.loading(() => tab.press("Enter"));
        await expect.poll(() => tab.value("document.activeElement.id")).toBe("key");
        expect(tab.complaints).toEqual([]);
      });

      test("a wrong key is said to who can't see, and the plots have words", async () => {
        const target = await postgres.createDatabase();
        await seed(target);
        const url = await startPage(target, true);
        const tab = await openTab();
        await tab.open(url);
        await enter(tab, "not the key");
        expect(await tab.value(`document.querySelector("[role=alert]").textContent.trim()`)).toBe(
          "That is not the key of this master.",
        );
        await tab.send("Network.setCookie", cookieFor(url, await signIn({ url })));
        await tab.open(url);
        await tab.send("Accessibility.enable");
        const { nodes } = (await tab.send("Accessibility.getFullAXTree")) as {
          readonly nodes: readonly { readonly role?: { value: string }; readonly name?: { value: string } }[];
        };
        const named = (role: string) =>
          nodes.filter((node) => node.role?.value === role).map((node) => node.name?.value ?? "");
        expect(named("image").length + named("img").length + named("graphics-document").length).toBe(4);
        for (const name of [...named("image"), ...named("img")])
          expect(name).toMatch(/ From \S+.* to .*points\.$/);
        expect(named("heading").slice(0, 2)).toEqual(["Master of pool pool-a", "Parts"]);
        expect(named("button")).toEqual(["Sign out"]);
      });
    },
    { template: migrate },
  );
});

const SHIFT = 8;
const FOCUSED = `(() => { const { tagName, textContent } = document.activeElement;
  return tagName.toLowerCase() + " " + textContent.trim().replace(/\\s+/g, " ").slice(0, 40); })()`;
const OUTLINE = `(() => { const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return outlineStyle + " " + outlineWidth; })()`;

/** Texts whose contrast to what is behind them is below 4.5 (WCAG 2.2, 1.4.3). */
const LOW_CONTRAST = `(() => {
  const read = (color) => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => { for (let one = element; one; one = one.parentElement) {
    const color = read(getComputedStyle(one).backgroundColor); if (color.a > 0) return color; } throw new Error("no background"); };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.textContent.trim() === "" || node.parentElement.closest("svg")) continue;
    const [one, two] = [light(read(getComputedStyle(node.parentElement).color)), light(behind(node.parentElement))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) found.push(ratio.toFixed(2) + " " + node.textContent.trim());
  }
  return found;
})()`;

async function set(
  tab: Tab,
  { width, scheme }: { readonly width: number; readonly scheme: string },
): Promise<void> {
  const size = { width, height: 900, deviceScaleFactor: 1, mobile: false };
  await tab.send("Emulation.setDeviceMetricsOverride", size);
  await tab.send("Emulation.setEmulatedMedia", {
    features: [{ name: "prefers-color-scheme", value: scheme }],
  });
}

async function keep(picture: Buffer, name: string): Promise<void> {
  expect(picture.subarray(1, 4).toString()).toBe("PNG");
  if (PICTURES === undefined) return;
  await mkdir(PICTURES, { recursive: true });
  await writeFile(`${PICTURES}/${name}.png`, picture);
}

function cookieFor(url: string, cookie: string): { name: string; value: string; url: string } {
  const [name = "", value = ""] = cookie.split("=");
  return { name, value, url };
}

async function startPage(target: Parameters<typeof startWebui>[0], isWhole: boolean): Promise<string> {
  const directory = await recordsDir();
  await writeRecords(directory, { nodes: 6, pins: 48_120 });
  const url = isWhole ? await startStandIns() : `http://127.0.0.1:${await freePort()}`;
  const webui = await startWebui(target, {
    billing: BILLING,
    masterId: "a".repeat(32),
    cluster: { url, basicAuth: null },
    statusPage: { ...STATUS_PAGE, recordsDir: directory, kuboUrl: url, pinningUrl: url },
  });
  return webui.url;
}

/** Stands in for the cluster peer, kubo and the pinning API, with answers in their form. */
async function startStandIns(): Promise<string> {
  const peers = [0, 1, 3, 4, 5].map((index) => ({
    id: nodeId(index),
    peername: `node-${index}`,
    addresses: [],
    cluster_peers: [],
    version: "1.1.6",
    rpc_protocol_version: "/ipfscluster/1.0/rpc",
    error: "",
    ipfs: { id: `kubo-${index}`, addresses: [], error: index === 4 ? "connection refused" : "" },
  }));
  const metric = (name: string, value: string) =>
    peers.map(({ id: peer }) => ({ name, peer, value, valid: true, expire: 0, weight: 1 }));
  const answers: Readonly<Record<string, unknown>> = {
    "/id": peers[0],
    "/monitor/metrics/ping": metric("ping", ""),
    "/monitor/metrics/freespace": metric("freespace", "1900000000000"),
    "/api/v0/id": { ID: "kubo-0", AgentVersion: "kubo/0.43.1/" },
    "/api/v0/repo/stat": { RepoSize: 120e9, StorageMax: 400e9 },
    "/api/v0/diag/sys": { diskinfo: { free_space: 500e9, total_space: 480e9 } },
    "/health": {
      status: "ok",
      checks: {},
      queue: { waiting: 14, inProgress: 3, failed: 2, oldestSeconds: 95, fault: null },
    },
  };
  const server = createServer((asked, answer) => {
    const path = (asked.url ?? "").split("?", 1)[0] ?? "";
    answer.setHeader("content-type", "application/json");
    if (path === "/peers") {
      answer.setHeader("trailer", "X-Stream-Error");
      answer.write(peers.map((peer) => `${JSON.stringify(peer)}\n`).join(""));
      answer.addTrailers({ "X-Stream-Error": "" });
      answer.end();
    } else if (path === "/pins") answer.writeHead(401).end("{}");
    else answer.end(JSON.stringify(answers[path] ?? null));
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function seed(target: Parameters<typeof sql>[0]): Promise<void> {
  for (const statement of SEED) await sql(target, statement);
}

const SEED = [
  `INSERT INTO masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at) VALUES
     ('pool-a', repeat('a', 32), 'berlin-1', '{}', '0.5.0', 'a', now(), now() - interval '2 minutes'),
     ('pool-a', repeat('b', 32), 'paris-2', '{}', '0.5.0', 'b', now(), now() - interval '3 minutes')`,
  `INSERT INTO cron_lease (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
   VALUES ('billing', 1, repeat('a', 32), 1, now(), now() - interval '3 hours', now())`,
  `INSERT INTO billing_hours (hour, started_at, finished_at, charged, amount)
   SELECT date_trunc('hour', now()) - n * interval '1 hour', now(), now(), 1200 + n, 43.125 + n
   FROM generate_series(1, 30) AS n`,
  `INSERT INTO pins (requestid, user_id, cid, status, size)
   SELECT gen_random_uuid(), 'u' || n % 10, 'c' || n, (ARRAY['queued', 'pinning', 'failed', 'pinned', 'pinned'])[n % 5 + 1], n
   FROM generate_series(1, 1000) AS n`,
];

/** The field of the key has the focus once the page is there: what is typed goes there, and Enter sends it. */
async function enter(tab: Tab, key: string): Promise<void> {
  await expect.poll(() => tab.value("document.activeElement.id"), { timeout: 10_000 }).toBe("key");
  await tab.send("Input.insertText", { text: key });
  await tab.loading(() => tab.press("Enter"));
}
