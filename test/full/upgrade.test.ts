import { UPGRADE_MATRIX } from "../support/crash-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(UPGRADE_MATRIX);
