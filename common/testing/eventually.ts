/**
 * For tests: resolves once `condition` holds. It is asked every 2 ms, and may read from a store.
 * @throws Error that shows the condition, where it does not hold within `withinMs`
 * @example
 * await eventually(() => published.length === 3)
 */
export async function eventually(condition: () => boolean | Promise<boolean>, withinMs = 10_000): Promise<void> {
  const deadlineMs = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`Not within ${withinMs} ms: ${condition}`)
    await Bun.sleep(2)
  }
}
