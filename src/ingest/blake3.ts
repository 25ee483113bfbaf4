import blake3 from "hash-wasm/dist/blake3.umd.min.js";
import { createRequire } from "node:module";
import { messageOf } from "../errors.ts";

/** The BLAKE3 digest (32 bytes) of these bytes, as lower-case hex. */
export type HashBlake3 = (bytes: Uint8Array) => string;

/** The hash of a block that is still arriving. */
export interface GrowingHash {
  /** Takes the block's bytes so far, from its first byte. */
  add(bytes: Uint8Array): void;
  /** The digest of the complete block, as lower-case hex. */
  digest(bytes: Uint8Array): string;
}

/** A BLAKE3 implementation, and its description for the log. */
export interface Blake3 {
  readonly hash: HashBlake3;
  /** Starts a hash. Native code hashes while the bytes arrive; WebAssembly hashes the whole block at the end. */
  readonly start: () => GrowingHash;
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
    const start = openNative(native);
    return { hash: (bytes) => start().digest(bytes), start, by: "native code" };
  } catch (cause) {
    const hash = await openWebAssembly();
    const start = (): GrowingHash => ({ add: () => {}, digest: hash });
    return { hash, start, by: `WebAssembly, without native code: ${messageOf(cause)}` };
  }
}

/** BLAKE3 is a tree. A part of this size, and at a multiple of it, is a whole subtree, which is hashed fastest. */
const SUBTREE_BYTES = 65_536;

function openNative(path: string): () => GrowingHash {
  const { Blake3Hasher } = createRequire(import.meta.url)(path) as NativeModule;
  return () => {
    const hasher = new Blake3Hasher();
    let hashed = 0;
    return {
      add(bytes) {
        const end = bytes.length - (bytes.length % SUBTREE_BYTES);
        if (end > hashed) hasher.update(bytes.subarray(hashed, end));
        hashed = Math.max(hashed, end);
      },
      digest(bytes) {
        hasher.update(bytes.subarray(hashed));
        return hasher.digest("hex");
      },
    };
  };
}

async function openWebAssembly(): Promise<HashBlake3> {
  const hasher = await blake3.createBLAKE3();
  return (bytes) => hasher.init().update(bytes).digest("hex");
}
