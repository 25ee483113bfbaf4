import { Agent, request } from "node:http";

/**
 * A simple concurrent load generator in its own process: `restore-generator.ts URL PREFIX COUNT CONCURRENCY` pins COUNT
 * invented CIDs with the options of the measured snapshot. Prints pins per second.
 */
const [url = "", prefix = "", count = "0", concurrency = "32"] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const { cidOf } = await import("../support/cids.ts");
const paths = Array.from(
  { length: Number(count) },
  (_, index) =>
    `/pins/${cidOf(`${prefix} ${index}`)}?name=file-${index}&mode=recursive&replication-min=-1&replication-max=-1&meta-owner=user-${index % 1000}`,
);
const agent = new Agent({ keepAlive: true, maxSockets: Number(concurrency) });

function send(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, method: "POST", agent }, (response) => {
      response.resume();
      response.on("end", () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`${response.statusCode}`)),
      );
    });
    sent.on("error", reject);
    sent.end();
  });
}

const started = performance.now();
const queue = paths.values();
await Promise.all(
  Array.from({ length: Number(concurrency) }, async () => {
    for (const path of queue) await send(path);
  }),
);
console.log(Math.round(paths.length / ((performance.now() - started) / 1000)));
agent.destroy();
