import type { NodesAnswer } from "../../src/federation/announce-name.ts";
import type { ClusterTarget, Listing, ListName, PeerIdentity, TakeLines } from "../../src/cluster/client.ts";
import type { AnyStep, Finding } from "../../src/engine/step.ts";
import { OperatorError } from "../../src/errors.ts";
import { prepareStorageNode } from "../../src/join/prepare-storage.ts";
import { openStorageSource, readSavedSettings } from "../../src/join/settings-source.ts";
import { STORAGE_BASE_DIR, STORAGE_NAMES, storageLayout } from "../../src/settings/layout.ts";
import { parseSize } from "../../src/settings/rules.ts";
import type { World } from "../../src/world.ts";
import { FakeMaster, NODE_PATH, PACKAGE_DIR, sha256, VERSION } from "./fake-master.ts";
import { makeIdentityFile } from "./node-identity.ts";

/** The paths of a fake storage node. */
export const LAYOUT = storageLayout(STORAGE_BASE_DIR);
/** The cluster peer of the fake pool's master. */
export const MASTER_ID = makeIdentityFile().peerId;
/** What the master's kubo announces: its loopback, one of its Docker networks, and where it can be reached. */
export const MASTER_KUBO = ["127.0.0.1", "172.18.0.1", "192.0.2.1"].map(
  (ip) => `/ip4/${ip}/tcp/4001/p2p/12D3KooWKubo`,
);
/** The fake node's own identity, always the same. */
export const OWN = makeIdentityFile();
export const API = "https://master.example";
/** The settings of a fake node. */
export const GIVEN: Readonly<Record<string, string>> = {
  CLUSTERNAME: "pool",
  CLUSTER_PEERNAME: "node",
  MASTER_CLUSTER_PEERIDS: MASTER_ID,
  MASTER_CLUSTER_BOOTSTRAP: `/dns4/master.example/tcp/9096/p2p/${MASTER_ID}`,
  STORAGE_API_URL: API,
  KUBO_STORAGE_MAX: "10GB",
};

export const CLUSTER_DATA = `/var/lib/docker/volumes/${STORAGE_NAMES.clusterVolume}/_data`;

/** An entry of the fake master's directory of names. */
interface Holder {
  readonly peerId: string;
  readonly addresses: readonly string[];
  readonly trusts?: readonly string[] | null;
  /** The peers of removed masters among them. */
  readonly removed?: readonly string[];
}

/** A box in memory that can become a storage node, and the master that it talks to. */
export class FakeStorage extends FakeMaster {
  /** Reserved names; null: the master does not answer. */
  names: Map<string, Holder> | null = new Map();
  /** False: an older master, which does not ask whom a node trusts. */
  asksForTrust = false;
  /** Who may register a name; undefined: an older master, which does not say it. */
  registration: "invite" | "open" | undefined = undefined;
  /** The pool of the master; undefined: an older master, which judges no claim. */
  pool: string | undefined = undefined;
  /** Why it would not register a free name, for a master that judges claims. */
  refusal: { readonly code: string; readonly error: string } | null = null;
  /** The authorization with an invite that no node has used yet. */
  unusedInvite: string | null = null;
  /** The claims that were asked about, with their authorization. */
  readonly claims: (readonly [path: string, authorization: string | undefined])[] = [];
  /** The authorization of each announcement. */
  readonly shown: (string | undefined)[] = [];
  /** True if the master has this node among its peers. */
  isCounted = true;
  isMasterConnected = true;
  pins = 3;
  /** The size of the pinset in the answer of the master's API; null: an older API, which lacks this request. */
  masterPins: number | null = 3;
  /** The age of that count; NaN: the API does not say it. */
  masterCountAgeMs = 0;
  /** The peer id of the master that counted. */
  countedBy = MASTER_ID;
  /** Called when the node's own list of pins is requested. */
  onList: () => void = () => {};
  /** True if the node's own list of pins is complete. */
  isListWhole = true;
  /** The status of its first pins. The others are pinned. */
  statuses: readonly string[] = [];
  /** Pins of which the list says wrongly that they are not there. */
  readonly directPins = new Set<string>();
  /** The pins that it was asked to pin again, and whether it does. */
  readonly recovered: string[] = [];
  canRecover = true;
  /** The size of its repository. */
  repoBytes = 1_000_000_000;
  /** What is left of the disk. */
  diskBytes = 50e9;
  /** The number of peers of its kubo. */
  kuboPeers = 1;
  /** The options with which each cluster peer was opened. */
  readonly clusterTargets: ClusterTarget[] = [];
  /** Progress lines and warnings. */
  readonly printed: string[] = [];

  constructor() {
    super();
    const startPostgres = this.docker.onStart;
    this.docker.onStart = (container) => {
      const path = `${CLUSTER_DATA}/identity.json`;
      if (container.name === STORAGE_NAMES.cluster && !this.files.tree.has(path))
        this.files.put(path, OWN.text, 0o600);
      return startPostgres(container);
    };
    this.http.routes.set("http://127.0.0.1:5001/api/v0/repo/stat?size-only=true", () => {
      const kubo = this.docker.boxes.get(STORAGE_NAMES.kubo);
      const limit = parseSize(kubo?.env["KUBO_STORAGE_MAX"] ?? "");
      return kubo?.status === "running"
        ? { status: 200, body: { RepoSize: this.repoBytes, StorageMax: limit } }
        : null;
    });
    this.http.routes.set("http://127.0.0.1:5001/api/v0/diag/sys", () => ({
      status: 200,
      body: { diskinfo: { free_space: 60e9, total_space: this.diskBytes } },
    }));
    this.http.routes.set("http://127.0.0.1:5001/api/v0/swarm/peers", () => ({
      status: 200,
      // Two connections to each.
      body: {
        Peers:
          this.kuboPeers === 0
            ? null
            : Array.from({ length: 2 * this.kuboPeers }, (_, index) => ({ Peer: `12D3KooW${index >> 1}` })),
      },
    }));
    this.http.routes.set("http://127.0.0.1:3601/health", () =>
      this.docker.boxes.get(STORAGE_NAMES.ingest)?.status === "running"
        ? { status: 200, body: { status: "ok", kubo: true } }
        : null,
    );
    const json = this.http.json.bind(this.http);
    this.http.json = async (url, options) => {
      if (url === `${API}/api/v1/pool`) return this.#answerPool();
      if (url === `${API}/api/v1/storage`) return this.names === null ? null : { status: 401, body: {} };
      if (!url.startsWith(`${API}/api/v1/nodes/`)) return await json(url, options);
      const path = url.slice(`${API}/api/v1/nodes/`.length);
      const [name = "", query = ""] = path.split("?");
      const held = this.names?.get(name);
      if (this.names === null) return null;
      const claimed = new URLSearchParams(query).get("pool");
      if (claimed !== null) this.claims.push([path, options?.authorization]);
      if (this.pool !== undefined && claimed !== null && claimed !== this.pool)
        return {
          status: 409,
          body: { code: "other-pool", error: `This master manages the names of pool ${this.pool}.` },
        };
      if (held !== undefined) {
        const isNew = options?.authorization !== undefined && options.authorization === this.unusedInvite;
        const asked = this.asksForTrust ? { trusts: null } : {};
        return {
          status: 200,
          body: { ...asked, ...held, ...(isNew && claimed !== null ? { invite: "unused" } : {}) },
        };
      }
      const judged = this.pool === undefined || claimed === null ? {} : { refusal: this.refusal };
      return { status: 404, body: { code: "no-such-node", registration: this.registration, ...judged } };
    };
  }

  /** A statement of trust. */
  async takeTrust(body: Holder & { readonly name: string }): Promise<NodesAnswer> {
    const { name, trusts } = body;
    const held = this.names?.get(name);
    if (!this.asksForTrust || held === undefined) return { status: 404, body: { code: "no-such-path" } };
    await this.gate.write(`trust ${name}`, () =>
      this.names?.set(name, { ...held, ...(trusts === undefined ? {} : { trusts }) }),
    );
    return { status: 200, body: { outcome: "Recorded" } };
  }

  /** The node's own list of pins, in blocks. Throws at the end if it is not complete. */
  async listPins(name: ListName, takeLines: TakeLines): Promise<Listing> {
    this.onList();
    this.askCluster();
    for (let pin = 0; pin < this.pins; pin += 1) {
      const own = { peername: "node", status: this.statuses[pin] ?? "pinned" };
      const line = { cid: `${pin}`, ...(name === "own-status" ? { peer_map: { [OWN.peerId]: own } } : {}) };
      await takeLines(Buffer.from(`${JSON.stringify(line)}\n`));
    }
    if (this.isListWhole) return { noContent: this.pins === 0, bytes: 0 };
    throw new OperatorError({ exit: "unavailable", what: "The list is not complete." });
  }

  /** The answer about one pin on this node; for a direct pin, the list is wrong and this is right. */
  ownPin(cid: string): unknown {
    const status = this.directPins.has(cid) ? "pinned" : (this.statuses[Number(cid)] ?? "pinned");
    return { cid, peer_map: { [OWN.peerId]: { peername: "node", status } } };
  }

  /** Like ipfs-cluster: a pin that is missing is queued. */
  recoverPin(cid: string): unknown {
    this.recovered.push(cid);
    if (
      this.canRecover &&
      !this.directPins.has(cid) &&
      this.statuses[Number(cid)] === "unexpectedly_unpinned"
    )
      this.statuses = this.statuses.with(Number(cid), "pinning");
    return this.ownPin(cid);
  }

  #answerPool(): { readonly status: number; readonly body: unknown } | null {
    if (this.names === null) return null;
    if (this.masterPins === null) return { status: 404, body: { error: "There is no GET /api/v1/pool." } };
    const body = { pool: "pool", peerId: this.countedBy, pins: this.masterPins };
    if (Number.isNaN(this.masterCountAgeMs)) return { status: 200, body };
    const countedAt = new Date(this.clock.now().getTime() - this.masterCountAgeMs).toISOString();
    return { status: 200, body: { ...body, countedAt } };
  }

  override copy(): FakeStorage {
    const plain = super.copy();
    const box = new FakeStorage();
    refill(box.files.tree, plain.files.tree);
    refill(box.docker.boxes, plain.docker.boxes);
    refill(box.docker.images, plain.docker.images);
    refill(box.docker.volumes, plain.docker.volumes);
    refill(box.docker.networks, plain.docker.networks);
    refill(box.system.programs, plain.system.programs);
    refill(box.system.units, plain.system.units);
    for (const name of plain.system.processes) box.system.processes.add(name);
    for (const name of plain.system.installed) box.system.installed.add(name);
    for (const version of plain.migrations.applied) box.migrations.applied.add(version);
    refill(box.migrations.masters, plain.migrations.masters);
    box.docker.engine = plain.docker.engine;
    box.docker.compose = plain.docker.compose;
    box.registered = plain.registered;
    box.names = this.names === null ? null : new Map(this.names);
    return box;
  }

  /** The answers of the node's own cluster peer. Throws if it does not run. */
  askCluster(): { readonly self: PeerIdentity; readonly peers: readonly PeerIdentity[] } {
    this.gate.look();
    if (this.docker.boxes.get(STORAGE_NAMES.cluster)?.status !== "running")
      throw new OperatorError({ exit: "unavailable", what: "ipfs-cluster does not answer." });
    const members = [OWN.peerId, MASTER_ID];
    const addresses = ["/ip4/127.0.0.1/tcp/9096", "/ip4/192.0.2.7/tcp/9096"];
    const self = peer(OWN.peerId, addresses, members);
    const master = peer(MASTER_ID, [], this.isCounted ? members : [MASTER_ID]);
    return { self, peers: this.isMasterConnected ? [self, master] : [self] };
  }
}

function peer(id: string, addresses: readonly string[], clusterPeers: readonly string[]): PeerIdentity {
  return {
    id,
    peername: id === MASTER_ID ? "master" : "node",
    version: "1.1.6",
    error: "",
    ipfsError: "",
    ipfsAddresses: id === MASTER_ID ? MASTER_KUBO : [],
    addresses: addresses.map((address) => `${address}/p2p/${id}`),
    clusterPeers,
  };
}

/** The world of the commands of a storage node on this box. */
export function worldOf(host: FakeStorage, parts: Partial<World> = {}): World {
  const world: Partial<World> = {
    host,
    version: VERSION,
    packageDir: PACKAGE_DIR,
    nodePath: NODE_PATH,
    hostname: "Box.example",
    environment: {},
    questions: null,
    hash: sha256,
    openNodesClient: (url) => ({
      url,
      send: async (_method, path, body, authorization) => {
        const { names } = host;
        if (path.endsWith("/trust")) return host.takeTrust(body as Holder & { readonly name: string });
        host.shown.push(authorization);
        const { name, peerId, addresses } = body as Holder & { readonly name: string };
        if (names === null) return { failure: "connection refused" };
        if (authorization === host.unusedInvite) host.unusedInvite = null;
        await host.gate.write(`announce ${name}`, () => void names.set(name, { peerId, addresses }));
        return { status: 201, body: { outcome: "Reserved", reservation: "1" } };
      },
    }),
    openCluster: (target) => {
      host.clusterTargets.push(target);
      return {
        identity: async () => host.askCluster().self,
        peers: async () => host.askCluster().peers,
        metrics: async () => (host.askCluster(), []),
        list: (name: ListName, takeLines: TakeLines) => host.listPins(name, takeLines),
        ownStatus: async (cid: string) => host.ownPin(cid),
        recoverHere: async (cid: string) => host.recoverPin(cid),
        close: () => {},
      } as unknown as ReturnType<World["openCluster"]>;
    },
    reporter: {
      listen: (event) => void host.printed.push(JSON.stringify(event)),
      note: (line) => void host.printed.push(line),
      progress: (line, leftMs) =>
        void host.printed.push(leftMs === undefined ? line : `${line} (${leftMs} ms left)`),
      result: () => {},
      wrap: (text: string) => [text],
      table: (rows) => rows.map((row) => row.join("  ")),
      error: () => {},
      close: () => Promise.resolve(),
    },
    ...parts,
  };
  return world as World;
}

/** What the operator gives to a run. */
export interface StorageOptions {
  readonly set?: Readonly<Record<string, string>>;
  readonly register?: boolean;
  /** The version that runs. Default: VERSION. */
  readonly version?: string;
}

/** The steps of a storage node, as a run on this box with these options creates them. */
export async function storageStepsOn(
  host: FakeStorage,
  { set = {}, register = true, version = VERSION }: StorageOptions = {},
): Promise<readonly AnyStep[]> {
  const world = worldOf(host, { version });
  const source = await openStorageSource(world, await readSavedSettings(world, LAYOUT.envFile));
  const { settings, problems } = source.resolve(new Map(Object.entries({ ...GIVEN, ...set })));
  if (problems.length > 0) throw new Error(problems.map(({ what }) => what).join("\n"));
  return prepareStorageNode(world, { layout: LAYOUT, settings, imagesArchive: null, register });
}

/** One of these steps. */
export async function storageStepOn(
  host: FakeStorage,
  id: string,
  options: StorageOptions = {},
): Promise<AnyStep> {
  const step = (await storageStepsOn(host, options)).find((one) => one.id === id);
  if (step === undefined) throw new Error(`no step ${id}`);
  return step;
}

/** A box on which all steps before this one are done; without a step, a complete node. */
export async function storageBoxBefore(
  step: string | null,
  options: StorageOptions = {},
): Promise<FakeStorage> {
  const host = new FakeStorage();
  for (const one of await storageStepsOn(host, options)) {
    if (one.id === step) break;
    const finding = (await one.probe(host)) as Finding<unknown>;
    if (finding.state === "foreign") throw new Error(`${one.id}: ${finding.why}`);
    for (const change of one.plan(finding)) await one.apply(change, host, () => {});
    await one.verify(host);
  }
  host.revive();
  return host;
}

function refill<V>(to: Map<string, V>, from: ReadonlyMap<string, V>): void {
  to.clear();
  for (const [key, value] of from) to.set(key, value);
}
