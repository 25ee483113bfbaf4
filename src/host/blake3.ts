import blake3 from "hash-wasm/dist/blake3.umd.min.js";

/** The BLAKE3 digest (32 bytes, as lower-case hex) of these bytes, one part after the other. */
export type HashBlake3 = (parts: readonly Uint8Array[]) => string;

/** Makes the WebAssembly module ready; what it gives runs to its end at about a gigabyte a second. */
export async function openBlake3(): Promise<HashBlake3> {
  const hasher = await blake3.createBLAKE3();
  return (parts) => {
    hasher.init();
    for (const part of parts) hasher.update(part);
    return hasher.digest("hex");
  };
}
