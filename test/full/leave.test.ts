import { LEAVE_MATRIX, PURGE_MATRIX } from "../support/leave-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(LEAVE_MATRIX);
wholeMatrix(PURGE_MATRIX);
