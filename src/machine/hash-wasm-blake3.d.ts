/** The part of hash-wasm that has BLAKE3 alone: its main file would bring 22 algorithms into the bundle. */
declare module "hash-wasm/dist/blake3.umd.min.js" {
  const blake3: Pick<typeof import("hash-wasm"), "createBLAKE3">;
  export default blake3;
}
