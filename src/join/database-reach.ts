import type { Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { isListenable } from "../settings/address.ts";
import type { MasterLayout } from "../settings/layout.ts";
import { RULES } from "../settings/rules.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";
import type { Settings } from "../settings/settings.ts";

const SUBJECT = "POSTGRES_BIND";
/** The services whose containers must be ours: only ours get to know of the encryption. The upstream gateway has its own check. */
const OURS = ["postgres", "pinning-api", "webui"];

/** Why other machines can't reach the database of this one as POSTGRES_BIND says. An invalid value is a problem already. */
export async function findReachProblems(
  host: Pick<HostReader, "system" | "files">,
  {
    settings,
    layout,
    adopt,
  }: {
    readonly settings: Settings;
    readonly layout: Pick<MasterLayout, "adoptedDir">;
    readonly adopt: readonly string[];
  },
): Promise<readonly Problem[]> {
  const address = settings.get(SUBJECT)?.value;
  if (address === undefined || !RULES.privateAddress.holds(address)) return [];
  if (isDatabaseElsewhere((key) => settings.get(key)?.value)) {
    const what = `${SUBJECT} is ${address}, but POSTGRES_HOST is ${settings.get("POSTGRES_HOST")?.value ?? ""}: there is no Postgres here.`;
    return [
      { subject: SUBJECT, what, remedy: `Remove ${SUBJECT}. It belongs to the machine with the database.` },
    ];
  }
  const own = host.system.addresses();
  const isHere = isListenable(address, own);
  const adopted = await findAdopted(host, layout, adopt);
  return [
    ...(isHere
      ? []
      : [
          {
            subject: SUBJECT,
            what: `${SUBJECT} is ${address}, which is not an address of this machine.`,
            remedy: `Its addresses are ${own.join(", ")}. Take a private one that the other masters reach.`,
          },
        ]),
    ...(adopted.length === 0
      ? []
      : [
          {
            subject: SUBJECT,
            what: `${SUBJECT} is set, but ${adopted.join(", ")} ${adopted.length === 1 ? "was" : "were"} not created by fula-node and ${adopted.length === 1 ? "stays" : "stay"} as created: without TLS.`,
            remedy: `Remove ${SUBJECT}. Or let fula-node make them: --replace SERVICE.`,
          },
        ]),
  ];
}

/** The adopted ones among those services, also those that this run would adopt. */
async function findAdopted(
  { files }: Pick<HostReader, "files">,
  { adoptedDir }: Pick<MasterLayout, "adoptedDir">,
  adopt: readonly string[],
): Promise<readonly string[]> {
  const recorded = ((await files.list(adoptedDir)) ?? []).map((name) => name.replace(/\.json$/, ""));
  const steps: Readonly<Record<string, readonly string[]>> = {
    postgres: ["postgres"],
    services: ["pinning-api", "webui"],
  };
  const now = new Set([...recorded, ...adopt.flatMap((step) => steps[step] ?? [])]);
  return OURS.filter((name) => now.has(name));
}
