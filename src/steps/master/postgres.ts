import { compareCompose } from "../../docker/compose-render.ts";
import {
  driftOf,
  evidenceOf,
  lookAtServices,
  type Project,
  waitHealthy,
} from "../../docker/compose-services.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import {
  isDatabaseElsewhere,
  type MasterContext,
  postgresTarget,
  requireTarget,
} from "../../settings/master-context.ts";
import { isOurs, NAMES } from "../../settings/master-layout.ts";
import { poll, readValues, type Values } from "../../settings/node-context.ts";

interface Seen {
  readonly imageMissing: boolean;
  readonly unhealthy: boolean;
}

type PostgresChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "up"; readonly services: readonly string[] })
  | (Change & { readonly kind: "restart"; readonly container: string });

const SERVICE = { service: "postgres", container: NAMES.postgres };
const HEALTHY_DEADLINE_MS = 180_000;

/** Postgres, here as a container or elsewhere as POSTGRES_HOST says. */
export function postgres(context: MasterContext, project: Project): StepSpec<Seen, PostgresChange> {
  const image = context.settings.get("POSTGRES_IMAGE")?.value ?? "";
  return {
    id: "postgres",
    title: "Postgres",
    touches:
      "Brings the container `postgres-pinning` up, data on a volume; nothing where POSTGRES_HOST names a database elsewhere.",
    probe: async (host) => {
      const values = await readValues(host, context);
      return isDatabaseElsewhere(values)
        ? await probeElsewhere(host, values)
        : await probeHere(host, context, project, image);
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { imageMissing, unhealthy } = finding.seen;
      const pull = imageMissing ? [{ kind: "pull-image", summary: `pull ${image}`, image } as const] : [];
      if (unhealthy)
        return [{ kind: "restart", summary: `restart ${NAMES.postgres}`, container: NAMES.postgres }];
      return [...pull, { kind: "up", summary: `bring ${NAMES.postgres} up`, services: [SERVICE.service] }];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") await host.docker.pull(change.image, report);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else
        await host.docker.composeUp(
          { name: project.name, file: project.file, envFile: context.layout.envFile, profiles: [] },
          change.services,
          report,
        );
    },

    async verify(host) {
      const values = await readValues(host, context);
      if (!isDatabaseElsewhere(values)) await waitHealthy(host, [SERVICE], HEALTHY_DEADLINE_MS);
      const target = requireTarget(values, context);
      const answer = await poll(host, HEALTHY_DEADLINE_MS, async () => {
        const said = await host.postgres.ask(target);
        return said.kind === "unreachable" ? null : said;
      });
      if (answer?.kind === "open") return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The database at ${target.host}:${target.port} does not open for ${target.user}: ${answer?.kind ?? "it can't be reached"}.`,
        remedy: `See \`docker logs ${NAMES.postgres}\`. A volume made with another password needs that password in ${context.layout.envFile}.`,
      });
    },
  };
}

async function probeElsewhere(host: HostReader, values: Values): Promise<Finding<Seen>> {
  const target = postgresTarget(values);
  const place = `${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`;
  const answer = target === null ? null : await host.postgres.ask(target);
  const evidence = { database: `${place}, elsewhere`, answer: answer?.kind ?? "no password to ask with" };
  if (answer?.kind === "open") {
    return {
      state: "ours",
      seen: { imageMissing: false, unhealthy: false },
      evidence: { ...evidence, system_identifier: answer.systemIdentifier },
    };
  }
  throw new OperatorError({
    exit: answer?.kind === "unreachable" ? "unavailable" : "settings",
    what: `The database at ${place} does not let us in: ${answer?.kind === "unreachable" ? answer.why : (answer?.kind ?? "POSTGRES_PASSWORD is missing")}.`,
    why: "POSTGRES_HOST names a database elsewhere, so none is made here.",
    remedy: "Check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD.",
  });
}

async function probeHere(
  host: HostReader,
  context: MasterContext,
  project: Project,
  image: string,
): Promise<Finding<Seen>> {
  const [states, volume, present, file] = await Promise.all([
    lookAtServices(host, context, project, [SERVICE], []),
    host.docker.volume(context.postgresVolume),
    host.docker.image(image),
    host.files.readText(project.file),
  ]);
  const [state] = states;
  const madeBy =
    volume === null ? null : ((await host.files.readText(`${volume.mountpoint}/PG_VERSION`))?.trim() ?? null);
  const evidence = {
    ...evidenceOf(states),
    volume:
      volume === null
        ? "absent"
        : `${volume.name}, ${isOurs(volume) ? "ours" : "no label of ours"}, Postgres ${madeBy ?? "not initialised"}`,
  };
  const seen = {
    imageMissing: present === null && context.imagesArchive === null,
    unhealthy: state?.state === "unhealthy",
  };
  const wantedMajor = majorOf(image);
  if (madeBy !== null && wantedMajor !== undefined && madeBy !== wantedMajor) {
    return {
      state: "foreign",
      evidence,
      why: `The volume ${context.postgresVolume} was made by Postgres ${madeBy}; the image is ${image}.`,
      remedy: `Set POSTGRES_IMAGE to an image of Postgres ${madeBy}, or move the data by dump and restore.`,
    };
  }
  const isTaken = volume !== null && !isOurs(volume) && !isOursByMarker(file, project, context);
  if (state?.state === "foreign" || (state?.state === "absent" && isTaken)) {
    const adoptable = volume !== null && (state.state === "absent" || state.claimable);
    const why =
      state.state === "foreign"
        ? `The container ${NAMES.postgres} is not ours (${state.detail}).`
        : `The volume ${context.postgresVolume} is not ours, and holds a database.`;
    return {
      state: "foreign",
      evidence,
      why,
      remedy:
        state.state === "absent" || adoptable
          ? "If it is not needed, rename or remove it; if it holds the pool's database, keep its password in .env."
          : `If it is not needed, rename or remove it. If it holds the pool's database in the volume ${context.postgresVolume}, keep its password in .env, remove the container but not the volume, and run again.`,
      ...(adoptable
        ? {
            claim: {
              state: "drifted",
              seen,
              drift: [`${NAMES.postgres} is not ours yet; its volume ${context.postgresVolume} is kept`],
              evidence,
            } as const,
          }
        : {}),
    };
  }
  if (state === undefined || state.state === "absent") return { state: "absent", seen, evidence };
  if (state.state === "running") return { state: "ours", seen, evidence };
  return { state: "drifted", seen, drift: driftOf(states), evidence };
}

/** The major of an image's tag: "16" of `registry:5000/postgres:16-alpine`; undefined where it can't be told. */
function majorOf(image: string): string | undefined {
  return /:(\d+)[^/:]*$/.exec(image.replace(/@.*$/, ""))?.[1];
}

/** Our compose file names the volume, so a run of ours has made it or was told to adopt it. */
function isOursByMarker(file: string | null, { text }: Project, { hash }: MasterContext): boolean {
  const { kind } = compareCompose(file, text, hash);
  return kind === "same" || kind === "differs";
}
