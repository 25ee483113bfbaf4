import { ROLLBACK_MATRIX } from "../support/restore-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(ROLLBACK_MATRIX);
