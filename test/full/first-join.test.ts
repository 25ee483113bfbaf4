import { FIRST_JOIN_MATRIX } from "../support/crash-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(FIRST_JOIN_MATRIX);
