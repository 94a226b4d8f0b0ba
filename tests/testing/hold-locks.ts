/** Keeps SQLite files locked by another process while `work` runs: nobody else can write to them. */
export async function holdLocks(paths: readonly string[], work: () => Promise<unknown>): Promise<void> {
  const holder = Bun.spawn([process.execPath, `${import.meta.dir}/hold-locks.child.ts`, ...paths], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const { done } = await holder.stdout.getReader().read()
  try {
    if (done) throw new Error(`${paths.join(', ')} could not be locked.`)
    await work()
  } finally {
    holder.stdin.end()
    await holder.exited
  }
}
