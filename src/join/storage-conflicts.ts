import type { World } from "../world.ts";
import { OperatorError } from "../errors.ts";
import { MASTER_BASE_DIR, NAMES } from "../settings/master-layout.ts";

const PROJECT = "com.docker.compose.project";
const MASTER_CONTAINERS: readonly string[] = [NAMES.postgres, NAMES.pinningApi, NAMES.webui, NAMES.gateway];
const MASTER_PROJECTS: readonly (string | undefined)[] = [NAMES.masterProject, NAMES.writerProject];
const MASTER_FILES = [
  `${MASTER_BASE_DIR}/.env`,
  `${MASTER_BASE_DIR}/docker-compose.yml`,
  "/opt/fula-writer/docker-compose.yml",
];

/** Throws (`foreign`) on a box that is a master, or was one: kubo, ipfs-cluster and their ports are the same. */
export async function refuseMaster({ host }: World): Promise<void> {
  const [containers, files] = await Promise.all([
    host.docker.containers(),
    Promise.all(MASTER_FILES.map((path) => host.files.stat(path))),
  ]);
  const found = [
    ...containers
      .filter(
        ({ name, labels }) => MASTER_CONTAINERS.includes(name) || MASTER_PROJECTS.includes(labels[PROJECT]),
      )
      .map(({ name }) => `the container ${name}`),
    ...MASTER_FILES.filter((_, index) => files[index] !== null),
  ];
  if (found.length === 0) return;
  throw new OperatorError({
    exit: "foreign",
    what: "This box is a master, and can't be a storage node too.",
    why: `Here is ${found.join(", ")}; a storage node would need the same kubo, ipfs-cluster and ports.`,
    remedy: "Use another box; or, where the master has moved away for good, move what is named away.",
  });
}
