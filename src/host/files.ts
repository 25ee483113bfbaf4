import { fileReader } from "./file-reader.ts";
import { fileWriter } from "./file-writer.ts";
import type { Files } from "./host.ts";

/** The files of this machine, to look at and to write. */
export const files: Files = { ...fileReader, ...fileWriter };
