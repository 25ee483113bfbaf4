import { compareCompose } from "../../docker/compose-render.ts";
import {
  driftOf,
  evidenceOf,
  keptName,
  lookAtServices,
  type Project,
  type Service,
  staleScripts,
  waitHealthy,
  writeCompose,
} from "../../docker/compose-services.ts";
import type { Change, Consent, Evidence, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import type { MasterContext } from "../../settings/master-context.ts";
import { isOurs, NAMES } from "../../settings/master-layout.ts";
import { MASTER_SETTINGS } from "../../settings/master.ts";
import { poll, readValues, type Values } from "../../settings/node-context.ts";
import { askWriter, describePins, type WriterAnswer } from "./writer-answer.ts";
import { findLeftIdentities, leftBehind, markTakenOver, TAKEN_OVER_TEXT } from "./writer-data.ts";

interface Seen {
  readonly missingImages: readonly string[];
  /** The files to write, and the name that the older compose file is kept under; null: all stay. */
  readonly rewrite: { readonly files: readonly string[]; readonly keep: string | null } | null;
  readonly up: readonly string[];
  readonly restart: readonly string[];
  /** True where data of another writer lies there, which this one goes on with. */
  readonly takesOver: boolean;
}

type WriterChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "mark-taken-over"; readonly path: string })
  | (Change & { readonly kind: "write-compose"; readonly path: string; readonly keep: string | null })
  | (Change & { readonly kind: "up"; readonly services: readonly string[] })
  | (Change & { readonly kind: "restart"; readonly container: string });

const SERVICES: readonly Service[] = [
  { service: "kubo", container: NAMES.kubo },
  { service: "ipfs-cluster", container: NAMES.cluster },
];
const NOTHING: Seen = { missingImages: [], rewrite: null, up: [], restart: [], takesOver: false };
const HEALTHY_DEADLINE_MS = 180_000;
const ANSWER_DEADLINE_MS = 60_000;

const CONSENT: Consent = {
  flag: "--provision-writer",
  question: "No kubo and ipfs-cluster were found. Make them on this box?",
  byDefault: true,
  explicit: true,
  remedy:
    "Run again with --provision-writer to make them here, or name those that you have: --set IPFS_API_ADDR=MULTIADDR --set IPFS_CLUSTER_API_ADDR=MULTIADDR.",
};

/** kubo and an ipfs-cluster peer that may write: adopted as they are, or made by us with the operator's word. */
export function writer(context: MasterContext, project: Project): StepSpec<Seen, WriterChange> {
  return {
    id: "writer",
    title: "kubo and ipfs-cluster (the writer)",
    touches:
      "Adopts kubo and ipfs-cluster as they are; with `--provision-writer` makes them as compose project `fula-writer`, data under `/opt/fula-writer`.",
    probe: (host) => probe(host, context, project),

    plan(finding) {
      if (finding.state === "ours") return [];
      const { missingImages, rewrite, up, restart, takesOver } = finding.seen;
      return [
        ...(up.length > 0 ? missingImages : []).map(
          (image) => ({ kind: "pull-image", summary: `pull ${image}`, image }) as const,
        ),
        ...(takesOver ? [markTakenOver(project)] : []),
        ...(rewrite === null
          ? []
          : [
              {
                kind: "write-compose",
                summary: `write ${rewrite.files.join(", ")}`,
                path: project.file,
                keep: rewrite.keep,
              } as const,
            ]),
        ...(up.length > 0
          ? [
              {
                kind: "up",
                summary: `bring ${up.join(", ")} up, data under ${project.directory}`,
                services: up,
              } as const,
            ]
          : []),
        ...restart.map(
          (container) => ({ kind: "restart", summary: `restart ${container}`, container }) as const,
        ),
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") await host.docker.pull(change.image, report);
      else if (change.kind === "mark-taken-over")
        await host.files.writeAtomic(change.path, TAKEN_OVER_TEXT, { mode: 0o644 });
      else if (change.kind === "write-compose") await writeCompose(host, project, change.keep);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else
        await host.docker.composeUp(
          { name: project.name, file: project.file, envFile: context.layout.envFile, profiles: [] },
          change.services,
          report,
        );
    },

    async verify(host) {
      if (await isManaged(host, project, context)) await waitHealthy(host, SERVICES, HEALTHY_DEADLINE_MS);
      const values = await readValues(host, context);
      const last: { fault: string } = { fault: "" };
      const works = await poll(host, ANSWER_DEADLINE_MS, async () => {
        const answer = await askWriter(host, values);
        last.fault = answer.fault ?? "";
        return answer.fault === null ? true : null;
      });
      if (works === true) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The writer does not work: ${last.fault}.`,
        remedy: `See \`docker logs ${NAMES.kubo}\` and \`docker logs ${NAMES.cluster}\`.`,
      });
    },
  };
}

async function probe(host: HostReader, context: MasterContext, project: Project): Promise<Finding<Seen>> {
  if (await isManaged(host, project, context)) return await probeManaged(host, context, project);
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
  if ((await host.files.readText(project.file)) !== null) return foreignFile(project, evidence);
  const seen: Seen = {
    ...NOTHING,
    missingImages: await findMissingImages(host, context),
    rewrite: { files: filesOf(project), keep: null },
    up: SERVICES.map(({ service }) => service),
  };
  const left = await findLeftIdentities(host, project);
  if (left.length > 0) return leftBehind(project, { ...seen, takesOver: true }, left, evidence);
  return { state: "absent", seen, evidence, consent: CONSENT };
}

async function probeManaged(
  host: HostReader,
  context: MasterContext,
  project: Project,
): Promise<Finding<Seen>> {
  const text = await host.files.readText(project.file);
  const comparison = compareCompose(text, project.text, context.hash);
  const states = await lookAtServices(host, context, project, SERVICES, []);
  const evidence = { ...evidenceOf(states), [project.file]: comparison.kind };
  if (comparison.kind === "not-ours") return foreignFile(project, evidence);
  const foreign = states.filter(({ state }) => state === "foreign");
  if (foreign.length > 0) {
    const why = foreign
      .map(({ container, detail }) => `The container ${container} is not ours (${detail}).`)
      .join(" ");
    return {
      state: "foreign",
      evidence,
      why,
      remedy:
        "One of the two is ours, so this is no writer to adopt. Remove the other one if it is not needed.",
    };
  }
  const stale = await staleScripts(host, project);
  const sameFile = comparison.kind === "same";
  const keep = text === null || sameFile ? null : keptName(project, text, context.hash);
  const files = filesOf(project).filter(
    (path) => stale.includes(path) || (!sameFile && path === project.file),
  );
  const seen: Seen = {
    missingImages: await findMissingImages(host, context),
    rewrite: files.length === 0 ? null : { files, keep },
    up: states
      .filter(({ state }) => state !== "running" && state !== "unhealthy")
      .map(({ service }) => service),
    restart: states.filter(({ state }) => state === "unhealthy").map(({ container }) => container),
    takesOver: false,
  };
  const drift = [
    ...(sameFile ? [] : [`${project.file}: ${comparison.kind}`]),
    ...stale.map((path) => `${path} is missing or differs`),
    ...driftOf(states),
  ];
  return drift.length === 0 ? { state: "ours", seen, evidence } : { state: "drifted", seen, drift, evidence };
}

/** Ours are containers with our label, and a compose file with our marker where one of ours would lie. */
async function isManaged(host: HostReader, project: Project, context: MasterContext): Promise<boolean> {
  const containers = await Promise.all(SERVICES.map(({ container }) => host.docker.container(container)));
  if (containers.some((container) => container !== null && isOurs(container))) return true;
  const kind = compareCompose(await host.files.readText(project.file), project.text, context.hash).kind;
  return kind !== "absent" && kind !== "not-ours";
}

function filesOf({ scripts, file }: Project): readonly string[] {
  return [...scripts.map(({ path }) => path), file];
}

function foreignFile({ file }: Project, evidence: Evidence): Finding<Seen> {
  return {
    state: "foreign",
    evidence: { ...evidence, [file]: "no marker of ours in its first line" },
    why: `${file} was not written by fula-node.`,
    remedy: "Move it away if it is not needed.",
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

/** None where an archive brings them for a writer to be made (the step images). */
async function findMissingImages(
  host: HostReader,
  { settings, imagesArchive, provisionWriter }: MasterContext,
): Promise<readonly string[]> {
  if (imagesArchive !== null && provisionWriter) return [];
  const images = ["KUBO_IMAGE", "CLUSTER_IMAGE"].map((key) => settings.get(key)?.value ?? "");
  const present = await Promise.all(images.map((image) => host.docker.image(image)));
  return images.filter((_, index) => present[index] === null);
}
