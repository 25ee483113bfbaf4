import type { Docker, DockerReader } from "./docker/engine.ts";
import type { FileReader } from "./machine/file-reader.ts";
import type { Files } from "./machine/file-writer.ts";
import type { System, SystemReader } from "./machine/system.ts";
import type { CertificateMaker } from "./database/make-certificate.ts";
import type { PostgresReader } from "./database/postgres.ts";
import type { PostgresWriter } from "./database/postgres-writer.ts";
import type { Clock, Random } from "./machine/clock.ts";
import type { HttpReader } from "./machine/http.ts";
import type { Signing, SigningReader } from "./machine/signing.ts";
import type { TlsReader } from "./machine/tls.ts";
import type { Migrator, MigratorReader } from "./database/migrator.ts";

/** The adapters that only read. */
export interface HostReader {
  readonly files: FileReader;
  readonly system: SystemReader;
  readonly docker: DockerReader;
  readonly postgres: PostgresReader;
  readonly migrations: MigratorReader;
  readonly http: HttpReader;
  readonly tls: TlsReader;
  readonly signing: SigningReader;
  readonly clock: Clock;
}

/** The adapters that also write. */
export interface Host extends HostReader {
  readonly files: Files;
  readonly system: System;
  readonly docker: Docker;
  readonly postgres: PostgresReader & PostgresWriter;
  readonly migrations: Migrator;
  readonly signing: Signing;
  readonly certificates: CertificateMaker;
  readonly random: Random;
}
