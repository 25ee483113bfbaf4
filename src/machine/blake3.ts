import blake3 from "hash-wasm/dist/blake3.umd.min.js";
import { createRequire } from "node:module";
import { messageOf } from "../errors.ts";

/** The BLAKE3 digest (32 bytes) of these bytes, as lower-case hex. */
export type HashBlake3 = (bytes: Uint8Array) => string;

/** A BLAKE3 implementation, and its description for the log. */
export interface Blake3 {
  readonly hash: HashBlake3;
  readonly by: string;
}

/** The part of @napi-rs/blake-hash's native module that is used. */
interface NativeModule {
  readonly Blake3Hasher: new () => { update(bytes: Uint8Array): unknown; digest(format: "hex"): string };
}

/** scripts/build.mjs puts the native module next to the bundle, for the supported processors. */
const NATIVE = `./blake3-${process.platform}-${process.arch}.node`;

/**
 * Loads BLAKE3: the native module that is shipped with the bundle (about 6 GB/s), or WebAssembly (about 0.9 GB/s) if
 * there is none for this machine or it does not load. Both give the same digests.
 */
export async function openBlake3(native = NATIVE): Promise<Blake3> {
  try {
    return { hash: openNative(native), by: "native code" };
  } catch (cause) {
    return { hash: await openWebAssembly(), by: `WebAssembly, without native code: ${messageOf(cause)}` };
  }
}

function openNative(path: string): HashBlake3 {
  const { Blake3Hasher } = createRequire(import.meta.url)(path) as NativeModule;
  return (bytes) => {
    const hasher = new Blake3Hasher();
    hasher.update(bytes);
    return hasher.digest("hex");
  };
}

async function openWebAssembly(): Promise<HashBlake3> {
  const hasher = await blake3.createBLAKE3();
  return (bytes) => hasher.init().update(bytes).digest("hex");
}
