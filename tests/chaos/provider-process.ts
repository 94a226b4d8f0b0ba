import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { askUntil } from '../../tools/client.ts'
import { freePort } from '../../tools/infra/server.ts'
import { type Spawned, spawnService } from '../testing/service-processes.ts'
import { tryCall } from '../testing/try-call.ts'

/** The payout provider, a process of its own whose requests fail at random. Its ledger outlives it. */
export interface ProviderProcess {
  readonly url: string
  /** The file that `readLedger` reads. */
  readonly ledger: string
  /** Ends it, and starts it again after so long. */
  away(signal: 'SIGTERM' | 'SIGKILL', ms: number): Promise<void>
  /** Stops it for so long while its connections stay open. */
  freeze(ms: number): Promise<void>
  /** From now on none of its requests fails. */
  heal(): Promise<void>
  dispose(): Promise<void>
}

const UP_WITHIN_MS = 30_000

/** @param options.seed what its faults follow from */
export async function startProviderProcess(options: { readonly dir: string; seed: string }): Promise<ProviderProcess> {
  const { dir, seed } = options
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const ledger = join(dir, 'provider.db')
  let running: Spawned | undefined
  let starts = 0
  let faulty = true

  async function start(): Promise<void> {
    const faults = faulty ? ['--faults', `${seed}/${starts++}`] : []
    running = spawnService({
      program: ['tools/provider.ts', '--port', String(port), '--ledger', ledger, ...faults],
      environment: {},
      log: join(dir, 'logs', 'provider.log'),
    })
    await askUntil(
      () => tryCall('GET', `${url}/ledger`),
      ({ status }) => status === 200,
      UP_WITHIN_MS,
    )
  }

  async function end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    running?.process.kill(signal)
    await running?.ended
  }

  await start()
  return {
    url,
    ledger,
    async away(signal, ms) {
      await end(signal)
      await sleep(ms)
      await start()
    },
    async freeze(ms) {
      running?.process.kill('SIGSTOP')
      await sleep(ms)
      running?.process.kill('SIGCONT')
    },
    async heal() {
      faulty = false
      await end('SIGTERM')
      await start()
    },
    dispose: () => end('SIGKILL'),
  }
}
