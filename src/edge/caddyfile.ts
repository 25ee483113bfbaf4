import type { Edge, EdgeTls } from "../settings/edge.ts";

/** Where the container finds the files of the edge. */
export const INSIDE = "/etc/caddy";

/** The names of the files next to the Caddyfile. */
export const FILES = {
  caddyfile: "Caddyfile",
  certificate: "cert.pem",
  key: "key.pem",
  root: "acme-root.pem",
} as const;

/** The path that the edge itself answers, to this machine only. */
export const HEALTH_PATH = "/fula-edge/health";

/** What the edge is made from. */
export interface EdgePlan extends Edge {
  /** The ports on 127.0.0.1 that it passes requests to. */
  readonly pinningPort: string;
  readonly storagePort: string;
  /** True if the storage API is ours: another image has no status page. */
  readonly hasStatusPage: boolean;
  /** The fingerprints of the files that it reads, so that other files make another text. */
  readonly fingerprints: readonly string[];
}

/**
 * Renders the Caddyfile. Every value in it has a rule that admits no blank, quote or brace. Paths are compared as they
 * were sent, since the services get them so: an escaped or doubled character is no part of a path that is served.
 */
export function renderCaddyfile(plan: EdgePlan, hash: (text: string) => string): string {
  const body = bodyOf(plan);
  return `${MARKER}${hash(body)}\n${body}`;
}

/** True if the first line says that fula-node wrote the file. */
export function isOurCaddyfile(text: string): boolean {
  return text.startsWith(MARKER);
}

/** The name that a Caddyfile of ours serves; null if it has none. */
export function hostIn(text: string): string | null {
  return /^https:\/\/(\S+) \{$/m.exec(text)?.[1] ?? null;
}

/** Uploads of CAR files. */
const CAR = "^/pins/import/car$";
const MARKER = "# fula-node edge sha256=";

/**
 * The services close a connection that is idle for 5 s (Node.js's default). Caddy must let it go before that: a POST
 * that it sends on a connection that closes is answered with 503, and nobody knows whether it arrived.
 */
const KEPT = `transport http {
				keepalive 3s
			}`;

/**
 * A service that refuses a request unread closes the connection to Caddy. Caddy stops reading the body then, keeps the
 * connection to the client, and takes the rest of the body for new requests: with such an answer it must close, too.
 */
const PROXIED = `${KEPT}
			@refused status 4xx 5xx
			handle_response @refused {
				header @chunked Connection close
				header @sized Connection close
				copy_response
			}`;

/** What Go's net/http says of a body in chunks that it can't read (its internal/chunked.go and transfer.go). */
const BROKEN_BODY = "(?i)chunk|MIME header|trailer";

/** The status page, to which its form goes too, and the end of a session. */
const STATUS_PAGE = "^/status(?:/sign-out)?(?:\\?.*)?$";

function bodyOf({ host, tls, pinningPort, storagePort, hasStatusPage, fingerprints }: EdgePlan): string {
  const statusPage = `
		reverse_proxy @status 127.0.0.1:${storagePort} {
			${PROXIED}
		}`;
  return `# Rendered by fula-node, which notices changes by hand; settings belong into .env.
${fingerprints.map((fingerprint) => `# reads ${fingerprint}\n`).join("")}{
	# No port to change it at run time: every program of this machine could use it.
	admin off
	persist_config off
	skip_install_trust
	grace_period 10s
	servers {
		# Not HTTP/3: it would need UDP on port 443 as well.
		protocols h1 h2
		max_header_size 32KB
		timeouts {
			read_header 10s
			# For a CAR file: this one holds for all, and those below can only be shorter.
			read_body 1h
			idle 2m
		}
	}
}

https://${host} {
	${renderTls(tls)}

	# What only programs of this machine may say. Some servers read _ in a name as -, so names with it go too: Caddy
	# before 2.11 passes them on.
	request_header -*_*
	request_header -X-Fula-*
	request_header -X-System-*
	request_header -X-Forwarded-*
	request_header -X-Real-Ip
	request_header -Forwarded

	@pins vars_regexp {http.request.uri} ^/pins(?:/[A-Za-z0-9_-]+)*/?(?:\\?.*)?$
	@api vars_regexp {http.request.uri} ^/api/v1(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+/?(?:\\?.*)?$
	@status vars_regexp {http.request.uri} ${STATUS_PAGE}
	@admin vars_regexp {http.request.uri} (?i)^/(?:pins|api/v1)/(?:admin|metrics)(?:[/?]|$)
	@car vars_regexp {http.request.uri} ${CAR}
	@others not vars_regexp {http.request.uri} ${CAR}
	@large {
		header_regexp Content-Length ^0*[1-9][0-9]{6,}$
		not vars_regexp {http.request.uri} ${CAR}
	}

	request_body @others {
		max_size 1MB
	}
	# Any other body has a minute, and the time that it needs at 100 kB/s. A service gives it half a minute.
	timeouts @others {
		read_timeout 60s 100000
	}
	# The service bounds CAR files. One may take long to arrive, but not stand still.
	timeouts @car {
		read_timeout 60s
	}
	@tunnel method CONNECT
	@chunked header Transfer-Encoding *
	@sized header_regexp Content-Length [1-9]
	route {
		error @tunnel 405
		error @admin 404
		error @large 413
		reverse_proxy @pins 127.0.0.1:${pinningPort} {
			${PROXIED}
		}
		reverse_proxy @api 127.0.0.1:${storagePort} {
			${PROXIED}
		}${hasStatusPage ? statusPage : ""}
		error 404
	}

	# In the error form of the pinning API.
	handle_errors 404 {
		${errorOf(404, "NOT_FOUND", "This path is not served here.")}
	}
	handle_errors 405 {
		header Allow "GET, POST, DELETE, OPTIONS"
		${errorOf(405, "METHOD_NOT_ALLOWED", "This method is not served here.")}
	}
	handle_errors 413 {
		${errorOf(413, "PAYLOAD_TOO_LARGE", "The body is larger than 1 MB.")}
	}
	handle_errors {
		@broken vars_regexp {err.message} "${BROKEN_BODY}"
		handle @broken {
			${errorOf(400, "BAD_REQUEST", "The body of the request is not valid HTTP/1.1.")}
		}
		handle {
			header Retry-After 5
			${errorOf(503, "SERVICE_UNAVAILABLE", "The service does not answer now.")}
		}
	}
}

# Another Host header than the name that the certificate is for.
https:// {
	respond 404
}

http://${host} {
	redir https://${host}{uri} 308
}

http:// {
	@health {
		remote_ip 127.0.0.0/8 ::1
		path ${HEALTH_PATH}
	}
	respond @health "ok" 200
	respond 404
}
`;
}

function renderTls(tls: EdgeTls): string {
  if (tls.kind === "internal") return "tls internal";
  if (tls.kind === "files") return `tls ${INSIDE}/${FILES.certificate} ${INSIDE}/${FILES.key}`;
  const { directory, email, root } = tls;
  return [
    `tls${email === null ? "" : ` ${email}`} {`,
    `\t\tca ${directory}`,
    ...(root === null ? [] : [`\t\tca_root ${INSIDE}/${FILES.root}`]),
    "\t}",
  ].join("\n");
}

function errorOf(status: number, reason: string, details: string): string {
  const body = JSON.stringify({ error: { reason, details } });
  // Caddy replaces what is in braces.
  const text = body.replaceAll("{", "\\{").replaceAll("}", "\\}");
  return `header X-Request-Id {http.request.uuid}
		header @pins Access-Control-Allow-Origin *
		header @pins Access-Control-Expose-Headers "retry-after, location, x-request-id"
		# Without it, Caddy reads the rest of the body before it answers.
		header Connection close
		header Content-Type application/json
		respond \`${text}\` ${status}`;
}
