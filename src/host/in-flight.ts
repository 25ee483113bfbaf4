/**
 * Makes a function that lets all who ask the same thing while it is being looked up share one look.
 * Nothing is remembered: whoever asks after the answer has come makes it be looked up again.
 */
export function shareInFlight<T>(): (question: string, look: () => Promise<T>) => Promise<T> {
  const underWay = new Map<string, Promise<T>>();
  return (question, look) => {
    const shared = underWay.get(question);
    if (shared !== undefined) return shared;
    const answer = look().finally(() => underWay.delete(question));
    underWay.set(question, answer);
    return answer;
  };
}
