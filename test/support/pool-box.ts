import type { Box } from "./box.ts";
import { eventually } from "./cluster-real.ts";
import { askCluster } from "./storage-boxes.ts";

const ANSWER = "/root/pool/answer";
const KEY = "/root/pool/key.pem";
/** The path of the certificate for https. Boxes do not trust it by default. */
const CERTIFICATE = "/root/pool/certificate.pem";

const SERVER = `
const { readFileSync } = require("node:fs");
const answer = (request, response) => {
  if (request.url !== "/pools/test-pool") return response.writeHead(404).end("{}");
  response.setHeader("content-type", "application/json");
  response.end(readFileSync("${ANSWER}"));
};
require("node:http").createServer(answer).listen(8400);
const own = { key: readFileSync("${KEY}"), cert: readFileSync("${CERTIFICATE}") };
require("node:https").createServer(own, answer).listen(8443);
`;

/** A pool API on a box. It gives the answer that was set last. */
export class PoolApi {
  readonly #box: Box;
  readonly http: string;
  readonly https: string;

  private constructor(box: Box) {
    this.#box = box;
    this.http = `http://${box.name}:8400/pools/test-pool`;
    this.https = `https://${box.name}:8443/pools/test-pool`;
  }

  static async start(box: Box): Promise<PoolApi> {
    await box.run(["mkdir", "-p", "/root/pool"]);
    await box.run(
      `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=${box.name} ` +
        `-addext subjectAltName=DNS:${box.name} -keyout ${KEY} -out ${CERTIFICATE}`,
    );
    const pool = new PoolApi(box);
    await pool.answer("{}");
    await box.run(["systemd-run", "--unit=pool-api", "--collect", "node", "-e", SERVER]);
    await eventually("the pool API answers", async () => {
      const { exitCode } = await box.exec(
        `curl -sf --cacert ${CERTIFICATE} ${pool.https} && curl -sf ${pool.http}`,
      );
      return exitCode === 0;
    });
    return pool;
  }

  certificate(): Promise<string> {
    return this.#box.readFile(CERTIFICATE);
  }

  answer(text: string): Promise<void> {
    return this.#box.writeFile(ANSWER, text);
  }
}

/** A pool API's answer about its master (pools.fx.land/pools/NAME). `changes` override its parts. */
export async function poolAnswer(
  master: Box,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { id } = JSON.parse((await askCluster(master, "GET", "/id")).body) as { id: string };
  const address = await master.address();
  return JSON.stringify({
    "ipfs-cluster-peerid": id,
    "ipfs-cluster-trustedpeers": [id, "", null],
    "kubo-peerid": id,
    ipfs_cluster: {
      addresses: [`/ip4/${address}/udp/9096/quic-v1/p2p/${id}`, `/ip4/${address}/tcp/9096/p2p/${id}`],
    },
    kubo: { Addresses: [`/ip4/${address}/tcp/4001/p2p/${id}`], AgentVersion: "kubo/0.42.0/" },
    cluster_peers: null,
    ...changes,
  });
}
