import { expect } from "vitest";
import { FIRST_JOIN, fulaNode } from "../support/artifact.ts";
import { endStateOf } from "../support/end-state.ts";
import { expectClearWords, expectConverged, joinWith, withBox } from "../support/fault-boxes.ts";
import { expectExit, stderrOf } from "../support/master-box.ts";
import { matrix, times } from "./cases.ts";

// Not on the disk that is full, and not where boxes are compared.
const HOOK = "/var/tmp/full-disk-hook.cjs";
const RECORD = "/run/full-disk";
const SHARES = 3;
/** More writes than a share of a first join has. */
const MOST_RUNS = 80;

/** Files that a run which could not write has left half-written. */
const LEFT_OVER = "find /opt /etc /run -name '*.fula-node-tmp*' -o -name '*.tmp'";
/** Each write of the snapshot fails in a run of its own. From the third failure in a row, an alarm is raised, whose log stays. */
const ALARM = /^more: file \/opt\/fula-master\/replication-alerts\.log$/;

matrix("join-as-master, the disk full at a write", [
  ...Array.from({ length: SHARES }, (_, index) => ({
    name: `at each write in turn, share ${index + 1} of ${SHARES}`,
    run: () =>
      withBox("docker", async (box) => {
        await box.copyIn(`${import.meta.dirname}/../support/full-disk-hook.cjs`, HOOK);
        const env = {
          NODE_OPTIONS: `--require ${HOOK}`,
          FULL_DISK: RECORD,
          FULL_DISK_SHARE: `${index + 1}/${SHARES}`,
        };
        const failedWrites = async (): Promise<readonly string[]> =>
          (await box.exec(["cat", RECORD])).stdout.split("\n").filter((line) => line !== "");
        const borne: string[] = [];
        for (let runs = 0; ; runs += 1) {
          expect(runs, (await failedWrites()).join("\n")).toBeLessThan(MOST_RUNS);
          const before = await failedWrites();
          const result = await fulaNode(box, FIRST_JOIN, { env });
          const [failed] = (await failedWrites()).slice(before.length);
          if (failed === undefined) {
            expectExit(result, 0);
            break;
          }
          if (result.exitCode === 0) borne.push(failed);
          else {
            expectClearWords(result);
            expect(stderrOf(result), failed).toMatch(/no space/i);
          }
          expect((await box.run(LEFT_OVER)).stdout, failed).toBe("");
        }
        const failed = await failedWrites();
        await expectConverged(box, await endStateOf(box), ALARM);
        const well = borne.length === 0 ? "" : `; the run ended well in spite of ${borne.join(", ")}`;
        return `${failed.length} writes failed${well}`;
      }),
  })),
  ...times(3, "really full from a change on that the seed chose", (random) =>
    withBox("docker", async (box) => {
      await box.run("mount -t tmpfs -o size=64g,mode=755 tmpfs /opt");
      const moment = `journal|intent|${1 + Math.floor(random() * 15)}`;
      const fill = "mount -o remount,size=$(df --output=used -k /opt | tail -n 1 | tr -d ' ')k /opt";
      const result = await joinWith(box, moment, fill);
      expectClearWords(result);
      expect(stderrOf(result)).toMatch(/no space|is full/i);
      const full = await endStateOf(box);
      await box.run("mount -o remount,size=64g /opt");
      await expectConverged(box, full);
      return `${moment.replaceAll("|", " ")}: exit code ${result.exitCode}`;
    }),
  ),
]);
