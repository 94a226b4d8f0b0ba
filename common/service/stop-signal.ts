/** Ctrl-C reaches a program that `bun run` started twice: from the terminal, and passed on by `bun run`. */
const SAME_SIGNAL_MS = 300

/**
 * Calls `stop` at the first SIGTERM or SIGINT. Another one, more than 300 ms later, ends the process at once with code 1.
 * @example
 * onStopSignal(() => void service.close())
 */
export function onStopSignal(stop: () => void): void {
  let firstMs: number | undefined
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (firstMs === undefined) {
        firstMs = performance.now()
        stop()
      } else if (performance.now() - firstMs > SAME_SIGNAL_MS) process.exit(1)
    })
  }
}
