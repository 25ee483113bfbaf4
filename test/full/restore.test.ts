import { RESTORE_MATRIX } from "../support/restore-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(RESTORE_MATRIX);
