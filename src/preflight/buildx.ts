import { isAtLeast } from "../machine/compare-versions.ts";
import type { Check } from "./check.ts";

/** Up to here the engine's classic builder was seen to serve `docker build` where buildx is absent. */
const CLASSIC_UNCERTAIN_FROM = "29";

/** Buildx, where an image is to be built and the engine may not be able to without it. */
export const buildx: Check = {
  id: "buildx",
  title: "builder for the service image",
  ignorable: true,

  async run(host, { wantsBuild }) {
    if (!wantsBuild) return [];
    const [engine, version] = await Promise.all([host.docker.version(), host.docker.buildxVersion()]);
    if (engine === null || version !== null || !isAtLeast(engine.version, CLASSIC_UNCERTAIN_FROM)) return [];
    return [
      {
        severity: "warning",
        what: `Docker ${engine.version} has no buildx here, and the service image is to be built.`,
        why: "Without it Docker falls back to its classic builder, which is deprecated and on its way out.",
        remedy: "Install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (Docker's own packages).",
      },
    ];
  },
};
