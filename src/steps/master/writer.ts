import { compareCompose } from "../../docker/compose-render.ts";
import {
  findExistingIdentities,
  isWriterManaged,
  keptName,
  type Project,
  staleScripts,
} from "../../docker/compose-project.ts";
import type { Service } from "../../docker/container-state.ts";
import {
  type FileChange,
  foreignContainers,
  NOTHING,
  type Obstacle,
  type Seen,
} from "../../docker/container-finding.ts";
import { type Judge, startOf } from "../../docker/container-finding.ts";
import { containers, imagesToPull, waitUntilItWorks } from "../../docker/containers.ts";
import { findMissingImages } from "../../docker/whole-images.ts";
import type { AnyStep, Consent, Evidence, Finding } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { NAMES, TAKEN_OVER } from "../../settings/layout.ts";
import { MASTER_SETTINGS } from "../../settings/master.ts";
import { type MasterContext, readValues, type Values } from "../../settings/context.ts";
import { canRead } from "../../machine/owner-check.ts";
import { askWriter, describePins, secretFilesOf, type WriterAnswer } from "../../cluster/writer.ts";

const SERVICES: readonly Service[] = [
  { service: "kubo", container: NAMES.kubo },
  { service: "ipfs-cluster", container: NAMES.cluster },
];

const CONSENT: Consent = {
  flag: "--provision-writer",
  question: "kubo and ipfs-cluster were not found. Create them on this box?",
  byDefault: true,
  explicit: true,
  remedy:
    "Run again with --provision-writer to create them here. Or name existing ones: --set IPFS_API_ADDR=MULTIADDR --set IPFS_CLUSTER_API_ADDR=MULTIADDR.",
};

/** kubo and an ipfs-cluster peer that may write: existing ones are adopted unchanged, new ones are created on request. */
export function writer(context: MasterContext, project: Project): AnyStep {
  return containers(context, project, {
    id: "writer",
    title: "kubo and ipfs-cluster (the writer)",
    touches:
      "Uses existing kubo and ipfs-cluster unchanged. With `--provision-writer`, creates them as the compose project `fula-writer`, data in `/opt/fula-writer`.",
    desired: () => ({ services: SERVICES, images: imagesToPull(context, ["KUBO_IMAGE", "CLUSTER_IMAGE"]) }),
    survey: (host) => surveyFiles(host, context, project),
    data: SERVICES.map((one) => ({ ...one, directory: `${project.directory}/${one.service}` })),
    inPlace: {
      isUsed: async (host) => !(await isWriterManaged(host, project, context.hash)),
      probe: (host) => probeExisting(host, context, project),
    },
    describeUp: (up) => `${startOf(up, ({ service }) => service)}, data in ${project.directory}`,

    async verify(host, report) {
      const values = await readValues(host, context);
      const remedy = `See \`docker logs ${NAMES.kubo}\` and \`docker logs ${NAMES.cluster}\`.`;
      await waitUntilItWorks(host, "The writer", async () => (await askWriter(host, values)).fault, {
        remedy,
        report,
      });
    },
  });
}

/** Compares the files of the writer that fula-node created. containers.ts compares its containers. */
async function surveyFiles(host: HostReader, { hash }: MasterContext, project: Project): Promise<Judge> {
  const { file } = project;
  const [text, stale] = await Promise.all([host.files.readText(file), staleScripts(host, project)]);
  const { kind } = compareCompose(text, project.text, hash);
  if (kind === "not-ours") return () => ({ evidence: { [file]: NO_MARKER }, obstacle: foreignFile(project) });
  const isSame = kind === "same";
  const keep = text === null || isSame ? null : keptName(project, text, hash);
  const files = filesOf(project).filter((path) => stale.includes(path) || (!isSame && path === file));
  return (states) => {
    const foreign = foreignContainers(
      states,
      "fula-node created one of the two, so the other cannot be adopted. If the other is not needed, remove it.",
    );
    return {
      evidence: { [file]: kind },
      obstacle: foreign === null ? null : { ...foreign, claim: null },
      drift: [
        ...(isSame ? [] : [`${file}: ${kind}`]),
        ...stale.map((path) => `${path} is missing or differs`),
      ],
      prepare: files.length === 0 ? [] : [writeFiles(project, files, keep)],
      isPresent: true,
    };
  };
}

/** True if the writer is one that fula-node created, or that this run may create. Reads only. */
export async function isWriterOurs(
  host: HostReader,
  context: MasterContext,
  project: Project,
): Promise<boolean> {
  if (await isWriterManaged(host, project, context.hash)) return true;
  if (!context.provisionWriter) return false;
  const finding = await probeExisting(host, context, project);
  return finding.state === "absent" || (finding.state === "foreign" && finding.claim !== undefined);
}

/** A writer that fula-node did not create, or no writer. */
async function probeExisting(
  host: HostReader,
  context: MasterContext,
  project: Project,
): Promise<Finding<Seen>> {
  const values = await readValues(host, context);
  const [answer, kubo, cluster, kuboUnit, clusterUnit] = await Promise.all([
    askWriter(host, values),
    host.docker.container(NAMES.kubo),
    host.docker.container(NAMES.cluster),
    host.system.unit(NAMES.kuboUnit),
    host.system.unit(NAMES.clusterUnit),
  ]);
  const things = [
    ...[kubo, cluster].flatMap((container) =>
      container === null ? [] : [`container ${container.name} (${container.status})`],
    ),
    ...[kuboUnit, clusterUnit].flatMap((unit) =>
      unit === null || !unit.loaded ? [] : [`unit ${unit.name} (${unit.active ? "active" : "not active"})`],
    ),
  ];
  const mounts = [kubo, cluster].flatMap((container) => container?.mounts ?? []);
  const configs = mounts.map(({ source, destination }) => `${source} on ${destination}`);
  const secrets = await secretFilesOf(
    host,
    [kubo, cluster].filter((one) => one !== null),
  );
  const isReadable = await Promise.all(secrets.map((path) => canRead(host.files, FIRST_PERSON, path)));
  const readable = secrets.filter((_, index) => isReadable[index]);
  const evidence: Evidence = {
    ...answer.evidence,
    ...(configs.length > 0 ? { data: configs.join(", ") } : {}),
    ...(readable.length > 0 ? { [`uid ${FIRST_PERSON} can read`]: readable.join(", ") } : {}),
    found: things.join(", ") || "no container, no unit",
  };
  if (answer.fault === null)
    return {
      state: "ours",
      seen: NOTHING,
      evidence: {
        pinset: await describePins(host, values),
        ...evidence,
        adopted: "yes: fula-node never restarts, changes or upgrades it",
      },
    };
  const isExternal = things.length === 0 && hasCustomAddresses(values);
  if (isExternal || things.length > 0 || isPartial(answer)) {
    return {
      state: "foreign",
      evidence,
      why: `${isExternal ? "The settings name a writer" : "This box has a writer"}, but it does not work: ${answer.fault}.`,
      remedy: remedyFor(isExternal, things),
    };
  }
  if ((await host.files.readText(project.file)) !== null) {
    const { why, remedy } = foreignFile(project);
    return { state: "foreign", evidence: { ...evidence, [project.file]: NO_MARKER }, why, remedy };
  }
  const write = writeFiles(project, filesOf(project), null);
  const seen: Seen = {
    ...NOTHING,
    missingImages: await findMissingImages(
      host,
      context,
      imagesToPull(context, ["KUBO_IMAGE", "CLUSTER_IMAGE"]),
    ),
    prepare: [write],
    up: SERVICES,
  };
  const identities = await findExistingIdentities(host, project.directory);
  if (identities.length > 0)
    return existingData(project, { ...seen, prepare: [markTakenOver(project), write] }, identities, evidence);
  return { state: "absent", seen, evidence, consent: CONSENT };
}

/** The number of the images' user, and of the first person on a Debian. */
const FIRST_PERSON = 1000;

function filesOf({ scripts, file }: Project): readonly string[] {
  return [...scripts.map(({ path }) => path), file];
}

const NO_MARKER = "no fula-node marker in its first line";

function foreignFile({ file }: Project): Obstacle {
  return {
    why: `${file} was not written by fula-node.`,
    remedy: "If it is not needed, move it away.",
    claim: null,
  };
}

function writeFiles({ file }: Project, files: readonly string[], keep: string | null): FileChange {
  return { kind: "write-compose", summary: `write ${files.join(", ")}`, path: file, keep };
}

/** Must be written before our first file there: after that file, the data counts as created by fula-node. */
function markTakenOver({ directory }: Project): FileChange {
  const path = `${directory}/${TAKEN_OVER}`;
  return {
    kind: "mark-taken-over",
    summary: `record in ${path} that fula-node must not remove the data there`,
    path,
  };
}

/** Refuses a directory with existing identities: a new writer there would continue with those peer ids and pins. */
function existingData(
  { directory }: Project,
  seen: Seen,
  identities: readonly string[],
  evidence: Evidence,
): Finding<Seen> {
  const allEvidence = { ...evidence, "left behind": identities.join(", ") };
  return {
    state: "foreign",
    evidence: allEvidence,
    why: `No writer is running, but ${directory} has the identity and the data of one (${identities.join(", ")}).`,
    remedy: `If that writer belongs to this box, start it again. If its data is not needed, move ${directory} away.`,
    claim: {
      state: "drifted",
      seen,
      drift: [`the writer of ${directory} is not adopted yet; its peer ids and data are kept`],
      evidence: allEvidence,
    },
  };
}

/** True if the addresses differ from the defaults. (After the first run, `.env` always contains addresses.) */
function hasCustomAddresses(values: Values): boolean {
  const keys = ["IPFS_API_ADDR", "IPFS_CLUSTER_API_ADDR"];
  return MASTER_SETTINGS.some(({ key, byDefault }) => keys.includes(key) && values(key) !== byDefault);
}

function remedyFor(isExternal: boolean, things: readonly string[]): string {
  if (isExternal)
    return "Start or repair it there, then run again. Or remove IPFS_API_ADDR and IPFS_CLUSTER_API_ADDR from the settings.";
  return things.some((thing) => thing.startsWith("unit"))
    ? `Start it (systemctl start ${NAMES.kuboUnit} ${NAMES.clusterUnit}), then run again.`
    : "Start or repair it, then run again. Or remove what is left of it and run with --provision-writer.";
}

function isPartial({ kubo, cluster }: WriterAnswer): boolean {
  return kubo || cluster;
}
