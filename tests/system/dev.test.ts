import { afterAll, expect, test } from 'bun:test'
import { utimesSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { serviceNames } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { freePort } from '../../tools/infra/server.ts'
import { describeLong } from '../testing/parts.ts'

const { path: dataDir, remove } = temporaryFolder()
afterAll(remove)

const environment = {
  ...process.env,
  DATA_DIR: dataDir,
  RATES_URL: 'bundled:', // example
  GATEWAY_PORT: '0',
  PROCESSOR_PORT: '0',
  MONITOR_PORT: '0',
}

/** What a program prints, as it comes. */
function transcript() {
  const decoder = new TextDecoder()
  let text = ''
  return {
    add: (bytes: Uint8Array) => {
      text += decoder.decode(bytes, { stream: true })
    },
    text: () => text,
    /** Resolves when the text has been printed, so many times. */
    async has(part: string, times = 1) {
      while (text.split(part).length <= times) await Bun.sleep(10)
    },
  }
}

/** A command in a terminal, as a person starts it: what they type reaches all of its processes. */
function inTerminal(folder: string, ...command: string[]) {
  const printed = transcript()
  const child = Bun.spawn(command, {
    cwd: join(REPOSITORY_ROOT, folder),
    env: environment,
    terminal: { cols: 200, rows: 50, data: (_terminal, bytes) => printed.add(bytes) },
  })
  return { child, printed, type: (keys: string) => child.terminal?.write(keys) }
}

/** `bun run dev` of gateway, without a terminal, at a port. */
async function devOfGateway() {
  const printed = transcript()
  const port = await freePort()
  const child = Bun.spawn([process.execPath, 'tools/services.ts', '--watch', 'gateway'], {
    cwd: REPOSITORY_ROOT,
    env: { ...environment, GATEWAY_PORT: String(port) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [child.stdout, child.stderr])
    void stream.pipeTo(new WritableStream({ write: (bytes) => printed.add(bytes) }))
  await printed.has('"ready"')
  const pid = () => Number([...printed.text().matchAll(/"pid":(\d+)/g)].at(-1)?.[1])
  return { child, printed, port, pid }
}

/** As an editor that saves it, without a change of what is in it. */
const save = (file: string) => utimesSync(join(REPOSITORY_ROOT, file), new Date(), new Date())

async function untilFree(port: number): Promise<void> {
  for (;;) {
    try {
      await Bun.serve({ hostname: '127.0.0.1', port, fetch: () => new Response() }).stop()
      return
    } catch {
      await Bun.sleep(20)
    }
  }
}

describeLong('at a terminal', () => {
  const keyboard = '\x03'
  for (const [folder, script] of [
    ['.', 'dev'],
    ['.', 'start'],
    ['gateway', 'dev'],
    ['processor', 'start'],
    ['monitor', 'dev'],
  ] as const) {
    test(`Ctrl-C closes what \`bun run ${script}\` started in ${folder}, with code 0`, async () => {
      const names = folder === '.' ? serviceNames : [folder]
      const { child, printed, type } = inTerminal(folder, process.execPath, 'run', script)
      await printed.has('"ready"', names.length)
      type(keyboard)
      expect(await child.exited).toBe(0)
      expect(printed.text().split('"closed"')).toHaveLength(names.length + 1)
    }, 30_000)
  }

  test('`bun run dev` prints where the services are, and how to make an operator', async () => {
    const { child, printed, type } = inTerminal('.', process.execPath, 'run', 'dev')
    await printed.has('--role operator')
    for (const pattern of [/gateway +http:\S+\/docs +GraphQL http:\S+\/graphql/, /processor +http/, /monitor +http/])
      expect(printed.text()).toMatch(pattern)
    type(keyboard)
    await child.exited
  }, 30_000)
})

describeLong('`bun run dev`', () => {
  test('starts a service again when a file of it changes, after it has closed in order', async () => {
    const { child, printed } = await devOfGateway()
    save('gateway/config.ts')
    await printed.has('"ready"', 2)
    save('common/name.ts')
    await printed.has('"ready"', 3)
    const events = [...printed.text().matchAll(/"msg":"(ready|closing|closed)"/g)].map(([, event]) => event)
    expect(events).toEqual(['ready', 'closing', 'closed', 'ready', 'closing', 'closed', 'ready'])
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  }, 30_000)

  test('starts no service again that was told to stop, when a file changes while it drains', async () => {
    const { child, printed, port } = await devOfGateway()
    // A request whose body does not end: draining waits for it.
    const socket = connect(port, '127.0.0.1')
    socket.write(
      'POST /auth/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
    )
    await Bun.sleep(100)
    child.kill('SIGTERM')
    await printed.has('"closing"')
    save('gateway/config.ts')
    await Bun.sleep(500)
    expect(child.exitCode).toBeNull()
    socket.destroy()
    expect(await child.exited).toBe(0)
    await untilFree(port)
    expect(printed.text().split('"ready"')).toHaveLength(2)
  }, 30_000)

  test('waits for the next change when a service ends by itself after one', async () => {
    const { child, printed, pid } = await devOfGateway()
    save('gateway/config.ts')
    await printed.has('"ready"', 2)
    process.kill(pid(), 'SIGKILL')
    await printed.has('it starts again after the next change')
    save('gateway/config.ts')
    await printed.has('"ready"', 3)
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  }, 30_000)

  test('that is killed leaves no service behind', async () => {
    const { child, port } = await devOfGateway()
    child.kill('SIGKILL')
    await untilFree(port)
  }, 30_000)
})
