import { storageMatrix } from "../support/storage-matrix.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(storageMatrix());
