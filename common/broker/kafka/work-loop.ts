/** Repeats `step` for as long as `hasWork`, one step at a time. */
export function createWorkLoop(hasWork: () => boolean, step: () => Promise<void>) {
  let running: Promise<void> | undefined

  async function loop(): Promise<void> {
    try {
      // Whatever is added in this turn of the event loop belongs to the first step.
      await Promise.resolve()
      while (hasWork()) await step()
    } finally {
      // Cleared synchronously with the last look at `hasWork`, so the next call of `run` starts a new loop.
      running = undefined
    }
  }

  return {
    /** Starts the loop, unless it runs already. Resolves when it ends. */
    run(): Promise<void> {
      running ??= loop()
      return running
    },
    isRunning: () => running !== undefined,
    /** Resolves when the loop is not running. */
    idle: async () => running,
  }
}
