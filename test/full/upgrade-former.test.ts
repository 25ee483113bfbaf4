import { FORMER_UPGRADE_MATRIX } from "../support/crash-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

wholeMatrix(FORMER_UPGRADE_MATRIX);
