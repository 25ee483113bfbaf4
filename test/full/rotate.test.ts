import { ROTATED, type SecretName } from "../../src/settings/rotation.ts";
import { rotationMatrix } from "../support/rotation-matrices.ts";
import { wholeMatrix } from "./whole-matrix.ts";

for (const secret of Object.keys(ROTATED) as SecretName[]) wholeMatrix(rotationMatrix(secret));
