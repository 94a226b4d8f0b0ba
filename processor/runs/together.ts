import { setImmediate } from 'node:timers/promises'

/**
 * Joins calls: those of one turn of the event loop, and all that come while one call is under way, are made together.
 * @param make is given the items of the calls, at most `atMost`, and resolves to an answer for each
 * @example
 * const append = together((records) => runs.append(records), 500)
 * const [one, other] = await Promise.all([append(a), append(b)])
 */
export function together<Item, Answer>(
  make: (items: readonly Item[]) => Promise<readonly Answer[]>,
  atMost: number,
): (item: Item) => Promise<Answer> {
  const waiting: ({ readonly item: Item } & PromiseWithResolvers<Answer>)[] = []
  let working = false

  async function work(): Promise<void> {
    while (waiting.length > 0) {
      await setImmediate()
      const taken = waiting.splice(0, atMost)
      try {
        const answers = await make(taken.map(({ item }) => item))
        for (const [index, { resolve, reject }] of taken.entries()) {
          const answer = answers[index]
          if (answer === undefined) reject(new Error('The call gave no answer.'))
          else resolve(answer)
        }
      } catch (error) {
        for (const { reject } of taken) reject(error)
      }
    }
    working = false
  }

  return (item) => {
    const call = { item, ...Promise.withResolvers<Answer>() }
    waiting.push(call)
    if (!working) {
      working = true
      void work()
    }
    return call.promise
  }
}
