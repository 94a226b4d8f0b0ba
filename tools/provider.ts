// `bun tools/provider.ts [--port N] [--ledger FILE] [--faults SEED]`: a payout provider, for PAYOUT_URL.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { asCommand, CommandError } from '../common/service/command.ts'
import { onStopSignal } from '../common/service/stop-signal.ts'
import { createFaults, type Faults } from './provider/faults.ts'
import { type Answer, type Ledger, openLedger, refusal } from './provider/ledger.ts'

const MAX_BODY_BYTES = 16 * 1024
const DEFAULT_PORT = '3003'

export interface Provider {
  /** For PAYOUT_URL. */
  readonly url: string
  readonly faults: Faults
  ledger(): Ledger
  /** Ends requests under way, too. */
  stop(): Promise<void>
}

/**
 * Starts a payout provider on this machine. It keeps what it did in a file, and answers a key that it knows as the first
 * time. It refuses payees that begin with `refused`; a payment to one that begins with `bounced` it accepts, and refuses
 * later. Its API, in JSON:
 *
 * - `POST /reservations {amount, currency, payee}`: 201 `{id}`; 422 `{code: "payee-refused"}`
 * - `DELETE /reservations/{id}`: 204, also again; 409 once it is paid
 * - `POST /payments {reservation}`: 201 `{id, status: "pending"}`; 409 where the reservation is not open
 * - `GET /payments/{id}`: 200 `{id, status: "pending" | "settled" | "refused"}`
 * - `GET /ledger`: 200, all that it did
 *
 * Every POST has an `Idempotency-Key`: 400 without one, 422 where it came before with another body.
 * @param options.port a free one by default
 * @param options.ledgerFile in memory by default. `readLedger` reads it in another process
 * @param options.faults a seed: faults come at random, which follows from it
 * @example
 * const provider = await startProvider()
 * provider.faults.next('drop-after', { on: 'POST /payments' })
 */
export async function startProvider(
  options: {
    readonly port?: number
    readonly ledgerFile?: string | undefined
    readonly faults?: string | undefined
  } = {},
): Promise<Provider> {
  const ledger = openLedger(options.ledgerFile)
  const faults = createFaults(options.faults)

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url: path = '' } = request
    if (faults.isDown()) return void request.socket.destroy()
    const body = await readBody(request)
    if (body === undefined) return send(response, refusal(413, 'payload-too-large'))
    if (method === 'GET' && path === '/ledger') return send(response, { status: 200, body: ledger.show() })

    const fault = faults.take(`${method} /${path.split('/')[1]}`)
    if (fault?.kind === 'drop-before') return void request.socket.destroy()
    if (fault?.kind === 'busy') return send(response, { ...refusal(429, 'busy'), headers: { 'Retry-After': '1' } })
    if (fault?.kind === 'failing') return send(response, refusal(500, 'failing'))
    if (fault?.kind === 'unavailable') return send(response, refusal(503, 'unavailable'))
    const key = request.headers['idempotency-key']
    const asked = { method, path, body, key: Array.isArray(key) ? undefined : key }
    const settling = fault?.kind === 'settle-later' ? fault : undefined
    if (fault?.kind === 'twice') ledger.act(asked)
    const answer = ledger.act(asked, settling)
    if (fault?.kind === 'drop-after') return void request.socket.destroy()
    if (fault?.kind === 'silent-after') return
    if (fault?.kind === 'slow') await sleep(fault.ms)
    send(response, answer)
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      console.error(error)
      response.destroy()
    })
  })
  const listening = Promise.withResolvers<void>()
  server.once('error', listening.reject)
  server.listen(options.port ?? 0, '127.0.0.1', listening.resolve)
  const stop = async () => {
    const closed = Promise.withResolvers<void>()
    server.close(() => closed.resolve())
    server.closeAllConnections()
    await closed.promise
    ledger.close()
  }
  await listening.promise.catch((error: unknown) => {
    ledger.close()
    throw error
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The provider has no port.')
  return { url: `http://127.0.0.1:${address.port}`, faults, ledger: ledger.show, stop }
}

/** Undefined where it is too large. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    const part = Buffer.from(chunk)
    bytes += part.byteLength
    if (bytes > MAX_BODY_BYTES) return undefined
    chunks.push(part)
  }
  return Buffer.concat(chunks).toString()
}

function send(response: ServerResponse, { status, body, headers }: Answer): void {
  response.writeHead(status, { ...headers, ...(body !== undefined && { 'Content-Type': 'application/json' }) })
  response.end(body === undefined ? undefined : JSON.stringify(body))
}

function parse(args: string[]) {
  try {
    const options = { port: { type: 'string' }, ledger: { type: 'string' }, faults: { type: 'string' } } as const
    return parseArgs({ args, options }).values
  } catch {
    throw new CommandError('bun tools/provider.ts [--port N] [--ledger FILE] [--faults SEED]')
  }
}

async function run(args: string[]): Promise<void> {
  const { port = DEFAULT_PORT, ledger, faults } = parse(args)
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) throw new CommandError('--port is a number from 0 to 65535.')
  const provider = await startProvider({ port: Number(port), ledgerFile: ledger, faults })
  console.log(provider.url)
  const stopped = Promise.withResolvers<void>()
  onStopSignal(stopped.resolve)
  await stopped.promise
  await provider.stop()
}

if (import.meta.main) await asCommand(() => run(process.argv.slice(2)))
