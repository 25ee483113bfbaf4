import { expect, test } from "vitest";
import { shareInFlight } from "../../src/machine/file-reader.ts";

/** A look whose answers the test gives, one for each time that it is looked. */
function heldLook() {
  const waiting: { resolve: (answer: string) => void; reject: (error: Error) => void }[] = [];
  const look = (): Promise<string> =>
    new Promise((resolve, reject) => void waiting.push({ resolve, reject }));
  return { waiting, look };
}

test("those who ask the same while it is looked up share one look", async () => {
  const { waiting, look } = heldLook();
  const share = shareInFlight<string>();

  const answers = [share("a", look), share("a", look)];
  waiting[0]?.resolve("seen");

  expect(await Promise.all(answers)).toEqual(["seen", "seen"]);
  expect(waiting).toHaveLength(1);
});

test("another question, and the same one after its answer, are looked up for themselves", async () => {
  const { waiting, look } = heldLook();
  const share = shareInFlight<string>();
  const first = share("a", look);
  const other = share("b", look);
  waiting[0]?.resolve("old");
  waiting[1]?.resolve("other");
  expect(await Promise.all([first, other])).toEqual(["old", "other"]);

  const again = share("a", look);
  waiting[2]?.resolve("new");

  expect(await again).toBe("new");
});

test("a look that fails fails for all who share it, and is not kept", async () => {
  const { waiting, look } = heldLook();
  const share = shareInFlight<string>();
  const answers = Promise.allSettled([share("a", look), share("a", look)]);
  waiting[0]?.reject(new Error("broken"));
  expect((await answers).map(({ status }) => status)).toEqual(["rejected", "rejected"]);

  const again = share("a", look);
  waiting[1]?.resolve("recovered");

  expect(await again).toBe("recovered");
});
