// Loaded with NODE_OPTIONS=--require into a run in a box: its calendar is DAYS_AGO days behind.
"use strict";
const behindMs = Number(process.env.DAYS_AGO) * 86_400_000;
const Present = globalThis.Date;
globalThis.Date = class Date extends Present {
  constructor(...given) {
    super(...(given.length === 0 ? [Present.now() - behindMs] : given));
  }
  static now() {
    return Present.now() - behindMs;
  }
};
