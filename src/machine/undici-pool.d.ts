/** The part of undici that sends: its main file would bring fetch, caches and web sockets into the bundle. */
declare module "undici/lib/dispatcher/pool.js" {
  export { Pool as default } from "undici";
}
