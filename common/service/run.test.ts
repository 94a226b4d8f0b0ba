import { expect, test } from 'bun:test'
import { join } from 'node:path'

test('a component that gives up ends its process with code 1, and the others close in order', async () => {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, 'run.test.child.ts')], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const out = await new Response(child.stdout).text()
  expect(await child.exited).toBe(1)
  expect(out).toContain('No broker took me.')
  expect(out).toContain('closed in order')
}, 20_000)
