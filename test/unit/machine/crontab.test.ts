import { describe, expect, it } from "vitest";
import { CRON_FILES } from "../../../src/settings/layout.ts";
import { compareCron, type CronEntry, renderCron } from "../../../src/machine/crontab.ts";

const ENTRY: CronEntry = {
  schedule: "*/30 * * * *",
  argv: ["/usr/bin/node", "/opt/fula-master/cli/current/bin/fula-node.js", "sweep"],
  log: "/opt/fula-master/sweep.log",
  about: "Sweeps.",
};
const hash = (text: string): string => `${text.length}-${text.charCodeAt(text.length >> 1)}`;
const wanted = renderCron(ENTRY, hash);

it("our files have names and an end that cron reads", () => {
  // cron(8): names in /etc/cron.d have letters, digits, underscores and hyphens only, and the last line ends with a newline.
  for (const path of Object.values(CRON_FILES)) expect(path).toMatch(/^\/etc\/cron\.d\/[A-Za-z0-9_-]+$/);
  expect(wanted.endsWith("\n")).toBe(true);
});

describe("renderCron", () => {
  it("writes what crontab(5) reads", () => {
    expect(wanted).toMatchInlineSnapshot(`
      "# fula-node cron sha256=209-111
      # Sweeps.
      SHELL=/bin/sh
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
      */30 * * * * root /usr/bin/node /opt/fula-master/cli/current/bin/fula-node.js sweep >> /opt/fula-master/sweep.log 2>&1
      "
    `);
  });

  it.each(["50%", "a b", "$(x)", "a;b", "a\nb", "", "'a'", "a&", "a|b", "a#b", "~", "*", "\u00E4"])(
    "throws for the word %j",
    (word) => {
      expect(() => renderCron({ ...ENTRY, argv: ["/usr/bin/node", word] }, hash)).toThrow(RangeError);
      expect(() => renderCron({ ...ENTRY, log: word }, hash)).toThrow(RangeError);
    },
  );
});

describe("compareCron", () => {
  it("distinguishes the same file, an older one, an edited one and a foreign one", () => {
    const older = renderCron({ ...ENTRY, schedule: "0 * * * *" }, hash);
    expect(compareCron(wanted, wanted, hash)).toBe("same");
    expect(compareCron(older, wanted, hash)).toBe("older");
    expect(compareCron(`${wanted}# mine\n`, wanted, hash)).toBe("edited");
    expect(compareCron(wanted.replace("*/30", "*/5"), wanted, hash)).toBe("edited");
    expect(compareCron(wanted.slice(0, wanted.indexOf("\n")), wanted, hash)).toBe("edited");
    expect(compareCron(wanted.slice(wanted.indexOf("\n") + 1), wanted, hash)).toBe("foreign");
    expect(compareCron("", wanted, hash)).toBe("foreign");
    expect(compareCron("0 * * * * root /root/sweep.sh\n", wanted, hash)).toBe("foreign");
  });
});
