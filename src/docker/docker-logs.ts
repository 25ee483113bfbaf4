const HEADER_BYTES = 8;

/**
 * Takes the frames of a container's log apart: 8 bytes of header (stream, three zeros, big-endian length)
 * and the payload (Engine API, "Attach to a container", stream format). Both streams are kept in the
 * order they came; a frame that is cut short at the end gives what is there.
 */
export function unframe(bytes: Buffer): string {
  const parts: Buffer[] = [];
  let at = 0;
  while (at + HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt32BE(at + 4);
    parts.push(bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length));
    at += HEADER_BYTES + length;
  }
  return Buffer.concat(parts).toString("utf8");
}
