import { compareCompose } from "../../docker/compose-render.ts";
import { findLeftIdentities, keptName, type Project, staleScripts } from "../../docker/compose-project.ts";
import {
  type FileChange,
  foreignContainers,
  NOTHING,
  type Obstacle,
  type Seen,
  type Service,
} from "../../docker/container-finding.ts";
import { containers, findMissingImages, type Judge, waitUntilItWorks } from "../../docker/containers.ts";
import type { AnyStep, Consent, Evidence, Finding } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { isOurs, NAMES, TAKEN_OVER } from "../../settings/layout.ts";
import { MASTER_SETTINGS } from "../../settings/master.ts";
import { type MasterContext, readValues, type Values } from "../../settings/context.ts";
import { askWriter, describePins, type WriterAnswer } from "../../cluster/writer.ts";

const SERVICES: readonly Service[] = [
  { service: "kubo", container: NAMES.kubo },
  { service: "ipfs-cluster", container: NAMES.cluster },
];

const CONSENT: Consent = {
  flag: "--provision-writer",
  question: "No kubo and ipfs-cluster were found. Make them on this box?",
  byDefault: true,
  explicit: true,
  remedy:
    "Run again with --provision-writer to make them here, or name those that you have: --set IPFS_API_ADDR=MULTIADDR --set IPFS_CLUSTER_API_ADDR=MULTIADDR.",
};

/** kubo and an ipfs-cluster peer that may write: adopted as they are, or made by us with the operator's word. */
export function writer(context: MasterContext, project: Project): AnyStep {
  return containers(context, project, {
    id: "writer",
    title: "kubo and ipfs-cluster (the writer)",
    touches:
      "Adopts kubo and ipfs-cluster as they are; with `--provision-writer` makes them as compose project `fula-writer`, data under `/opt/fula-writer`.",
    desired: () => ({ services: SERVICES, images: imagesOf(context) }),
    survey: (host) => surveyFiles(host, context, project),
    inPlace: {
      isUsed: async (host) => !(await isManaged(host, project, context)),
      probe: (host) => probeFound(host, context, project),
    },
    describeUp: (up) =>
      `bring ${up.map(({ service }) => service).join(", ")} up, data under ${project.directory}`,

    async verify(host) {
      const values = await readValues(host, context);
      const remedy = `See \`docker logs ${NAMES.kubo}\` and \`docker logs ${NAMES.cluster}\`.`;
      await waitUntilItWorks(host, "The writer", async () => (await askWriter(host, values)).fault, remedy);
    },
  });
}

/** Compares the files of the writer that was made here; its containers are compared elsewhere. */
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
      "One of the two is ours, so this is no writer to adopt. Remove the other one if it is not needed.",
    );
    return {
      evidence: { [file]: kind },
      obstacle: foreign === null ? null : { ...foreign, claim: null },
      drift: [
        ...(isSame ? [] : [`${file}: ${kind}`]),
        ...stale.map((path) => `${path} is missing or differs`),
      ],
      prepare: files.length === 0 ? [] : [writeFiles(project, files, keep)],
      isBegun: true,
    };
  };
}

/** A writer that was not made here, or none at all. */
async function probeFound(
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
  const configs = [kubo, cluster].flatMap((container) =>
    (container?.mounts ?? []).map(({ source, destination }) => `${source} on ${destination}`),
  );
  const evidence: Evidence = {
    ...answer.evidence,
    ...(configs.length > 0 ? { data: configs.join(", ") } : {}),
    found: things.join(", ") || "no container, no unit",
  };
  if (answer.fault === null)
    return {
      state: "ours",
      seen: NOTHING,
      evidence: {
        pinset: await describePins(host, values),
        ...evidence,
        adopted: "yes: never restarted, rewritten or upgraded",
      },
    };
  const elsewhere = things.length === 0 && isNamedElsewhere(values);
  if (elsewhere || things.length > 0 || isHalf(answer)) {
    return {
      state: "foreign",
      evidence,
      why: `A writer is ${elsewhere ? "named in the settings" : "here"}, but it does not work: ${answer.fault}.`,
      remedy: remedyFor(elsewhere, things),
    };
  }
  if ((await host.files.readText(project.file)) !== null) {
    const { why, remedy } = foreignFile(project);
    return { state: "foreign", evidence: { ...evidence, [project.file]: NO_MARKER }, why, remedy };
  }
  const write = writeFiles(project, filesOf(project), null);
  const seen: Seen = {
    ...NOTHING,
    missingImages: await findMissingImages(host, imagesOf(context)),
    prepare: [write],
    up: SERVICES,
  };
  const left = await findLeftIdentities(host, project.directory);
  if (left.length > 0)
    return leftBehind(project, { ...seen, prepare: [markTakenOver(project), write] }, left, evidence);
  return { state: "absent", seen, evidence, consent: CONSENT };
}

/** Ours are containers with our label, and a compose file with our marker where one of ours would lie. */
async function isManaged(host: HostReader, project: Project, context: MasterContext): Promise<boolean> {
  const found = await Promise.all(SERVICES.map(({ container }) => host.docker.container(container)));
  if (found.some((container) => container !== null && isOurs(container))) return true;
  const kind = compareCompose(await host.files.readText(project.file), project.text, context.hash).kind;
  return kind !== "absent" && kind !== "not-ours";
}

function filesOf({ scripts, file }: Project): readonly string[] {
  return [...scripts.map(({ path }) => path), file];
}

const NO_MARKER = "no marker of ours in its first line";

function foreignFile({ file }: Project): Obstacle {
  return {
    why: `${file} was not written by fula-node.`,
    remedy: "Move it away if it is not needed.",
    claim: null,
  };
}

function writeFiles({ file }: Project, files: readonly string[], keep: string | null): FileChange {
  return { kind: "write-compose", summary: `write ${files.join(", ")}`, path: file, keep };
}

/** Comes before the first of our own files there: from then on the data counts as this box's writer's. */
function markTakenOver({ directory }: Project): FileChange {
  const path = `${directory}/${TAKEN_OVER}`;
  return {
    kind: "mark-taken-over",
    summary: `write down in ${path} that the data there is not ours to remove`,
    path,
  };
}

/** The halt that they call for: a writer made here would go on as that one, with its peer ids and its pins. */
function leftBehind(
  { directory }: Project,
  seen: Seen,
  left: readonly string[],
  evidence: Evidence,
): Finding<Seen> {
  const told = { ...evidence, "left behind": left.join(", ") };
  return {
    state: "foreign",
    evidence: told,
    why: `Nothing runs as the writer here, but ${directory} holds the identity and the data of one (${left.join(", ")}).`,
    remedy: `Start that writer again if this is its box; if its data is not needed, move ${directory} away.`,
    claim: {
      state: "drifted",
      seen,
      drift: [`the writer of ${directory} is not ours yet; its peer ids and data are kept`],
      evidence: told,
    },
  };
}

/** Other addresses than the defaults, which `.env` holds after any first run. */
function isNamedElsewhere(values: Values): boolean {
  const keys = ["IPFS_API_ADDR", "IPFS_CLUSTER_API_ADDR"];
  return MASTER_SETTINGS.some(({ key, byDefault }) => keys.includes(key) && values(key) !== byDefault);
}

function remedyFor(elsewhere: boolean, things: readonly string[]): string {
  if (elsewhere)
    return "Start or mend it there and run again; or take IPFS_API_ADDR and IPFS_CLUSTER_API_ADDR out of the settings.";
  return things.some((thing) => thing.startsWith("unit"))
    ? `Start it (systemctl start ${NAMES.kuboUnit} ${NAMES.clusterUnit}) and run again.`
    : "Start or mend it and run again; or remove what is left of it, and run with --provision-writer.";
}

function isHalf({ kubo, cluster }: WriterAnswer): boolean {
  return kubo || cluster;
}

/** None if an archive brings them for a writer that is to be made (the step images). */
function imagesOf({ settings, imagesArchive, provisionWriter }: MasterContext): readonly string[] {
  if (imagesArchive !== null && provisionWriter) return [];
  return ["KUBO_IMAGE", "CLUSTER_IMAGE"].map((key) => settings.get(key)?.value ?? "");
}
