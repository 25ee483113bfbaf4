import type { HostReader } from "../host.ts";

/** The parts of the machine that answer the same question in the same way as long as nothing changes it. */
const PARTS = ["files", "system", "docker", "postgres", "migrations"] as const;

/**
 * The same machine, on which each question is asked once: who asks it again gets the first answer, also if that was an
 * error. For a command that changes nothing and looks at one moment. Several steps and parts ask the same things, and
 * without this a look at a master asks Docker three times as often. `http` is left out: it can ask for work.
 */
export function lookOnce<Host extends HostReader>(host: Host): Host {
  const once = PARTS.map((part) => [part, rememberAnswers(host[part])] as const);
  return { ...host, ...Object.fromEntries(once) };
}

type Question = (...given: readonly unknown[]) => unknown;

function rememberAnswers<Part extends object>(part: Part): Part {
  const methods = new Map<string | symbol, Question>();
  return new Proxy(part, {
    get(target, name) {
      const known = methods.get(name);
      if (known !== undefined) return known;
      const question: unknown = Reflect.get(target, name);
      if (typeof question !== "function") return question;
      const asked = remember(question.bind(target) as Question);
      methods.set(name, asked);
      return asked;
    },
  });
}

/** A question that is asked with something besides plain data, such as a signal or a function, is asked each time. */
function remember(question: Question): Question {
  const answers = new Map<string, unknown>();
  return (...given) => {
    if (!given.every(isPlain)) return question(...given);
    const key = JSON.stringify(given);
    if (!answers.has(key)) answers.set(key, question(...given));
    return answers.get(key);
  };
}

function isPlain(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return typeof value !== "function";
  const prototype: unknown = Object.getPrototypeOf(value);
  const isData = Array.isArray(value) || prototype === Object.prototype;
  return isData && Object.values(value).every(isPlain);
}
