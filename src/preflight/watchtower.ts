import type { Check } from "./check.ts";

/** The abandoned project, under any registry and tag; not its maintained fork nickfedor/watchtower. */
const ABANDONED = /(?:^|\/)containrrr\/watchtower(?:[:@]|$)/;

/** A leftover of the abandoned updater that the bash installer used to set up. */
export const watchtower: Check = {
  id: "watchtower",
  title: "leftover containrrr/watchtower",
  ignorable: true,

  async run(host) {
    const leftovers = (await host.docker.containers()).filter(({ image }) => ABANDONED.test(image));
    return leftovers.map(({ name, image, status }) => ({
      severity: "warning",
      what: `The container ${name} (${image}, ${status}) is a leftover of an abandoned updater.`,
      why: "It was archived in 2025 and speaks an API that Docker 29 no longer answers; before that it restarts containers unasked.",
      remedy: `Remove it: docker rm -f ${name}. Updates are the profile that AUTO_UPDATE switches on.`,
    }));
  },
};
