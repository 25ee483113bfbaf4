import * as z from "zod";
import { type App, json } from "../server.ts";

/** What a client can ask for, by `METHOD /path/{parameter}`. */
export type Operations = Readonly<Record<`${"GET" | "POST" | "DELETE"} /${string}`, Operation>>;

/** One request, with everything that may be answered. */
export interface Operation {
  /** The name of the function in generated clients. */
  readonly id: string;
  readonly summary: string;
  readonly description?: string;
  /** Each of them is enough. Empty: no credential is needed. */
  readonly credentials: readonly (keyof typeof CREDENTIALS)[];
  readonly path?: Readonly<Record<string, z.ZodType>>;
  /** More than one value of a list is `a,b`, and an object is JSON. */
  readonly query?: Readonly<Record<string, z.ZodType>>;
  /** What the query must have. */
  readonly required?: readonly string[];
  readonly body?: z.ZodType;
  /** The fields of a form (multipart/form-data), in place of a body. */
  readonly form?: z.ZodType;
  readonly answers: Answers;
}

/** The answers by status. Without a schema there is no body. */
export type Answers = Readonly<Record<number, readonly [description: string, schema?: z.ZodType]>>;

const CREDENTIALS = {
  token: {
    type: "http",
    scheme: "bearer",
    description:
      "An API key of the account (`fula-node user token`). If the master accepts them, a token that a wallet signed.",
  },
  service: {
    type: "apiKey",
    in: "header",
    name: "X-Fula-Service-Auth",
    description: "A program on the master names the account. It is refused from outside the machine.",
  },
  systemKey: { type: "apiKey", in: "header", name: "X-System-Key", description: "SYSTEM_KEY of the master." },
  invite: {
    type: "apiKey",
    in: "header",
    name: "Authorization",
    description: "`Fula-Invite ID.SIGNATURE`: an invite of the pool. A name that is not yours yet needs one.",
  },
} as const;

/** The headers of answers by status. */
const HEADERS: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  301: { Location: "Where the content can be read." },
  401: { "WWW-Authenticate": "What kind of credential is accepted." },
  429: { "Retry-After": "After how many seconds to try again." },
  503: { "Retry-After": "After how many seconds to try again." },
};

const NAMED = z.registry<{ readonly id: string }>();

/** Gives a schema a name in the documents. */
export function named<Schema extends z.ZodType>(id: string, schema: Schema): Schema {
  NAMED.add(schema, { id });
  return schema;
}

/** Builds an OpenAPI 3.1 document. A later version may add fields to what is answered, so objects are open. */
export function openApiDocument(
  about: { readonly title: string; readonly description: string; readonly version: string },
  operations: Operations,
): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const [key, operation] of Object.entries(operations)) {
    const [method = "", path = ""] = key.split(" ");
    (paths[path] ??= {})[method.toLowerCase()] = operationObject(operation);
  }
  const used = new Set(Object.values(operations).flatMap(({ credentials }) => credentials));
  return {
    openapi: "3.1.1",
    info: { ...about, license: { name: "MIT", identifier: "MIT" } },
    servers: [{ url: "/" }],
    paths,
    components: {
      schemas: usedSchemas(JSON.stringify(paths)),
      securitySchemes: Object.fromEntries([...used].map((name) => [name, CREDENTIALS[name]])),
    },
  };
}

/** Adds `GET PATH`, which serves a document to everybody, also to pages of other origins. It is built when it is asked for. */
export function addDocument(app: App, path: string, load: () => Promise<object>): void {
  let document: Promise<object> | null = null;
  app.get(path, async () => {
    document ??= load();
    return json(200, await document, { "access-control-allow-origin": "*" });
  });
}

function operationObject(operation: Operation): object {
  const {
    id,
    summary,
    description,
    credentials,
    path = {},
    query = {},
    required = [],
    body,
    form,
  } = operation;
  const parameters = [
    ...Object.entries(path).map(([name, schema]) => parameterObject(name, "path", schema, true)),
    ...Object.entries(query).map(([name, schema]) =>
      parameterObject(name, "query", schema, required.includes(name)),
    ),
  ];
  const security = credentials.map((name) => ({ [name]: [] }));
  return {
    operationId: id,
    summary,
    ...(description === undefined ? {} : { description }),
    security: credentials.includes("invite") ? [...security, {}] : security,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: { required: true, content: contentOf(body) } }),
    ...(form === undefined
      ? {}
      : { requestBody: { required: true, content: { "multipart/form-data": { schema: schemaOf(form) } } } }),
    responses: Object.fromEntries(
      Object.entries(operation.answers).map(([status, [text, schema]]) => [
        status,
        {
          description: text,
          ...(HEADERS[Number(status)] === undefined ? {} : { headers: headersOf(HEADERS[Number(status)]) }),
          ...(schema === undefined ? {} : { content: contentOf(schema) }),
        },
      ]),
    ),
  };
}

function parameterObject(
  name: string,
  where: "path" | "query",
  schema: z.ZodType,
  required: boolean,
): object {
  const common = { name, in: where, required };
  if (schema instanceof z.ZodRecord) return { ...common, content: contentOf(schema) };
  const isList = schema instanceof z.ZodArray;
  return { ...common, schema: schemaOf(schema), ...(isList ? { style: "form", explode: false } : {}) };
}

function headersOf(headers: Readonly<Record<string, string>> = {}): object {
  return Object.fromEntries(
    Object.entries(headers).map(([name, description]) => [name, { description, schema: { type: "string" } }]),
  );
}

function contentOf(schema: z.ZodType): object {
  return { "application/json": { schema: schemaOf(schema) } };
}

const POINTER = "#/components/schemas/";

function schemaOf(schema: z.ZodType): object {
  const id = NAMED.get(schema)?.id;
  if (id !== undefined) return { $ref: `${POINTER}${id}` };
  return withoutIds(z.toJSONSchema(schema, { io: "input" }));
}

/** The schemas that a text refers to, and those that they refer to. */
function usedSchemas(text: string): Readonly<Record<string, object>> {
  const { schemas } = z.toJSONSchema(NAMED, { io: "input", uri: (id) => `${POINTER}${id}` });
  const used = new Map<string, object>();
  const follow = (from: string): void => {
    for (const [, id = ""] of from.matchAll(/#\/components\/schemas\/(\w+)/g)) {
      const schema = schemas[id];
      if (used.has(id) || schema === undefined) continue;
      const plain = withoutIds(schema);
      used.set(id, plain);
      follow(JSON.stringify(plain));
    }
  };
  follow(text);
  return Object.fromEntries([...used].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function withoutIds(schema: object): object {
  const { $schema: _schema, $id: _id, ...plain } = schema as Readonly<Record<string, unknown>>;
  return plain;
}
