import { expect, test } from 'bun:test'
import { join } from 'node:path'

/** A service's process. `component` says which of its components misbehaves. */
function start(component: 'works' | 'gives up' | 'closes slowly') {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, 'run.test.child.ts'), component], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const lines = child.stdout.pipeThrough(new TextDecoderStream())
  let out = ''
  const read = (async () => {
    for await (const text of lines) out += text
  })()
  return {
    child,
    async ended() {
      await read
      return { code: await child.exited, out }
    },
    async said(text: string) {
      while (!out.includes(text)) await Bun.sleep(5)
    },
  }
}

test('a component that gives up ends its process with code 1, and the others close in order', async () => {
  const { code, out } = await start('gives up').ended()
  expect(code).toBe(1)
  expect(out).toContain('No broker took me.')
  expect(out).toContain('closed in order')
}, 20_000)

test.each(['SIGINT', 'SIGTERM'] as const)(
  'a %s that comes twice at once, as from `bun run`, closes in order',
  async (signal) => {
    const { child, said, ended } = start('works')
    await said('"ready"')
    child.kill(signal)
    child.kill(signal)
    const { code, out } = await ended()
    expect(code).toBe(0)
    expect(out).toContain('closed in order')
    expect(out).toContain('"msg":"closed"')
  },
  20_000,
)

test('a second Ctrl-C, by a person, ends a service at once that closes slowly', async () => {
  const { child, said, ended } = start('closes slowly')
  await said('"ready"')
  child.kill('SIGINT')
  await said('"closing"')
  const pressing = setInterval(() => child.kill('SIGINT'), 100)
  const { code, out } = await ended()
  clearInterval(pressing)
  expect(code).toBe(1)
  expect(out).not.toContain('"msg":"closed"')
}, 20_000)
