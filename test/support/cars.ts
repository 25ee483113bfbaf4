import { encode, Tagged } from "cborg";
import { base32 } from "multiformats/bases/base32";
import { CID } from "multiformats/cid";
import * as digests from "multiformats/hashes/digest";
import { varint } from "multiformats";
import { createHash } from "node:crypto";

/** A block as a CAR has it. */
export interface Block {
  readonly cid: CID;
  readonly bytes: Uint8Array;
}

export const RAW = 0x55;
export const DAG_PB = 0x70;
export const DAG_CBOR = 0x71;

/** A block with a sha2-256 CID. */
export function blockOf(bytes: Uint8Array, codec = RAW): Block {
  const digest = digests.create(0x12, createHash("sha256").update(bytes).digest());
  return { cid: CID.createV1(codec, digest), bytes };
}

/** A DAG-CBOR block that links to others. */
export function linking(children: readonly Block[]): Block {
  return blockOf(encode(children.map(({ cid }) => linkTo(cid))), DAG_CBOR);
}

/** The text of a CID in base32. */
export function textOf({ cid }: Block): string {
  return cid.toV1().toString(base32);
}

function linkTo(cid: CID): Tagged {
  return new Tagged(42, Uint8Array.from([0, ...cid.bytes]));
}

export function headerOf(roots: readonly CID[], version = 1): Buffer {
  return framed(encodeHeader({ roots: roots.map(linkTo), version }));
}

function encodeHeader(header: Readonly<Record<string, unknown>>): Uint8Array {
  return encode(header);
}

/** Bytes with their length before them. */
export function framed(bytes: Uint8Array): Buffer {
  const length = new Uint8Array(varint.encodingLength(bytes.length));
  varint.encodeTo(bytes.length, length);
  return Buffer.concat([length, bytes]);
}

export function frameOf({ cid, bytes }: Block): Buffer {
  return framed(Buffer.concat([cid.bytes, bytes]));
}

/** A CARv1 whose root is the first block. */
export function carOf(blocks: readonly Block[], roots = blocks.slice(0, 1).map(({ cid }) => cid)): Buffer {
  return Buffer.concat([headerOf(roots), ...blocks.map(frameOf)]);
}

/** The same as a CARv2, with some bytes of padding before its data and after it. */
export function carV2Of(v1: Buffer): Buffer {
  const pragma = framed(encodeHeader({ version: 2 }));
  const place = Buffer.alloc(40);
  const offset = pragma.length + place.length + 7;
  place.writeBigUInt64LE(BigInt(offset), 16);
  place.writeBigUInt64LE(BigInt(v1.length), 24);
  return Buffer.concat([pragma, place, Buffer.alloc(7), v1, Buffer.from("an index")]);
}
