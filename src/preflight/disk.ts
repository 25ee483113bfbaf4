import { type Check, inGibibytes } from "./check.ts";

const USUAL_ROOT = "/var/lib/docker";

/** Room for data at the base directory, and for images at Docker's root. */
export const disk: Check = {
  id: "disk",
  title: "free disk space",
  ignorable: true,

  async run(host, { baseDir, minimumFreeBytes }) {
    const dockerRoot = (await host.docker.version())?.rootDirectory ?? USUAL_ROOT;
    const wanted = [
      { path: baseDir, bytes: minimumFreeBytes.baseDir, use: "settings, data and snapshots" },
      { path: dockerRoot, bytes: minimumFreeBytes.dockerRoot, use: "images and volumes" },
    ];
    const spaces = await Promise.all(wanted.map(({ path }) => host.files.space(path)));
    return wanted.flatMap(({ path, bytes, use }, index) => {
      const freeBytes = spaces[index]?.freeBytes ?? 0;
      if (freeBytes >= bytes) return [];
      return [
        {
          severity: "failure" as const,
          what: `${path} has ${inGibibytes(freeBytes)} free; ${inGibibytes(bytes)} are needed for ${use}.`,
          remedy: "Free some space there, or mount a larger disk.",
        },
      ];
    });
  },
};
