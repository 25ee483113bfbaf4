/**
 * The answer, or an error once `stop` is aborted: for questions that make nothing, so that nobody has to wait for the answer of
 * what hangs. What comes later is dropped.
 */
export async function orStop<Answer>(stop: AbortSignal, answer: Promise<Answer>): Promise<Answer> {
  let callOff = (): void => {};
  const stopped = new Promise<never>((_resolve, reject) => {
    const end = () => reject(stop.reason as Error);
    callOff = () => stop.removeEventListener("abort", end);
    if (stop.aborted) end();
    else stop.addEventListener("abort", end, { once: true });
  });
  try {
    return await Promise.race([answer, stopped]);
  } finally {
    callOff();
  }
}
