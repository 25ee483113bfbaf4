import { openVerified, type SnapshotFlags } from "./snapshot-files.ts";
import type { VerbExit, World } from "./world.ts";

/** `snapshot verify FILE`: says that a snapshot is whole and genuine, or throws what is wrong with it. */
export async function snapshotVerify(given: string, flags: SnapshotFlags, world: World): Promise<VerbExit> {
  const { file, manifest, count, sizeBytes, keyId, order } = await openVerified(world, flags, given);
  const taken = manifest === null ? "" : `, taken ${manifest.created_at} on ${manifest.peer.name}`;
  const lines = [
    `Verified: ${file.name}: ${count} pins, ${sizeBytes} bytes, signed with key ${keyId}${taken}.`,
  ];
  if (manifest === null) lines.push("It is in upstream's format: it does not say of which cluster it is.");
  else {
    const { previous, drop } = manifest;
    if (order.state === "linked") lines.push(`It follows ${previous?.name}, which is here and fits.`);
    if (order.state === "gap" && previous !== null)
      lines.push(`It follows ${previous.name}, which is not here.`);
    if (order.state === "first") lines.push("It is the first of its chain.");
    if (drop !== null)
      lines.push(`Mind: the pinset had shrunk from ${drop.from} to ${drop.to} pins since the one before.`);
    if (manifest.clock_went_back) lines.push("The clock had jumped back since the one before.");
  }
  world.reporter.result({
    data: {
      verb: "snapshot verify",
      verdict: "verified",
      name: file.name,
      layout: file.layout,
      count,
      sizeBytes,
      keyId,
      order: manifest === null ? null : order.state,
      manifest,
    },
    lines,
  });
  return "ok";
}
