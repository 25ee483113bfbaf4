import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { createReporter } from "../../src/world.ts";

test.each([false, true])(
  "a page of ours is printed with its whole path, wherever a line comes from (json: %s)",
  async (json) => {
    const lines: string[] = [];
    const stream = { write: (text: string) => lines.push(text) > 0 };
    const process = { stdout: stream, stderr: stream } as unknown as NodeJS.Process;
    const reporter = await createReporter(process, json, false);
    reporter.note("note: see docs/ports.md#proxy");
    reporter.listen({ type: "warning", text: "see docs/troubleshooting.md" });
    reporter.result({ data: { todo: "see docs/lost-pinset.md" }, lines: ["result: docs/lost-pinset.md."] });
    const pages = [...lines.join("").matchAll(/\S*docs\/[a-z-]+\.md/g)].map(([page]) =>
      page.replaceAll(/^.*"/g, ""),
    );
    expect(pages).toHaveLength(json ? 2 : 3);
    for (const page of pages) {
      expect(page).toMatch(/^\//);
      expect(existsSync(page), page).toBe(true);
    }
  },
);
