// `bun run audit`: an export of the audit chains, and whether they, or an export, are as gateway once signed them.
import { createReadStream } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { ConfigError } from '@posta/common/service/config.ts'
import { PublicKey } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'
import { type ChainReport, verify } from '../audit/chain.ts'
import { exportLines, readExport } from '../audit/export.ts'
import { witnessFrom } from '../audit/trusted-heads.ts'
import { readMonitorConfig } from '../config.ts'
import type { StoredEvent } from '../events/events.ts'
import { openStore } from '../store/store.ts'

const USAGE = `bun run audit export [--out FILE]
bun run audit verify [EXPORT] [--checkpoint FILE] [--keys FILE]

\`verify\` goes through the chains of EXPORT, or of the store that MONITOR_STORE_URL names, and ends with 0 only if they are
whole. A checkpoint that was kept elsewhere, as \`GET /audit/checkpoints/latest\` answers it, shows also what was cut off, or
replaced as a whole. With gateway's JWK set (\`/.well-known/jwks.json\`, kept elsewhere too) only what those keys have signed
is believed.`

const Answer = v.object({ checkpoint: v.string() })

/** What whoever typed the command can put right: its message is all that is shown. */
class CommandError extends Error {}

interface Trusted {
  readonly kept: string | undefined
  readonly keys: readonly PublicKey[] | undefined
}

/** A whole store, wherever it lies. */
interface Source {
  readonly checkpoints: readonly string[]
  readonly pages: AsyncIterable<readonly StoredEvent[]>
}

try {
  await choose(process.argv.slice(2))()
} catch (error) {
  const expected = error instanceof CommandError || error instanceof ConfigError
  console.error(expected ? error.message : error)
  process.exitCode = 1
}

function choose(args: string[]): () => Promise<void> {
  const { positionals, values } = parse(args)
  const [command, path, ...more] = positionals
  const { out, checkpoint, keys } = values
  if (command === 'export' && path === undefined && checkpoint === undefined && keys === undefined)
    return () => exportTo(out)
  if (command === 'verify' && more.length === 0 && out === undefined)
    return async () => {
      const trusted = {
        kept: checkpoint === undefined ? undefined : checkpointOf(await read(checkpoint), checkpoint),
        keys: keys === undefined ? undefined : keysOf(await read(keys), keys),
      }
      if (path === undefined) await verifyStore(trusted)
      else await report(await readExport(linesOf(path)).catch(explain), trusted)
    }
  throw new CommandError(USAGE)
}

function parse(args: string[]) {
  try {
    const text = { type: 'string' } as const
    return parseArgs({ args, allowPositionals: true, options: { out: text, checkpoint: text, keys: text } })
  } catch {
    throw new CommandError(USAGE)
  }
}

async function exportTo(path: string | undefined): Promise<void> {
  const store = openStore(readMonitorConfig(process.env).storeUrl)
  // Events tell who did what and when: the file is its owner's alone.
  const file = path === undefined ? undefined : await open(path, 'w', 0o600)
  try {
    for await (const lines of exportLines(store)) await (file ? file.writeFile(lines) : Bun.write(Bun.stdout, lines))
    await file?.sync()
  } finally {
    await file?.close()
    await store.close()
  }
}

async function verifyStore(trusted: Trusted): Promise<void> {
  const store = openStore(readMonitorConfig(process.env).storeUrl)
  try {
    const checkpoints = await store.checkpoints.list({ limit: 1000 })
    await report({ checkpoints: checkpoints.map(({ jwt }) => jwt), pages: store.events.inChainOrder() }, trusted)
  } finally {
    await store.close()
  }
}

async function report({ checkpoints, pages }: Source, trusted: Trusted): Promise<void> {
  const { newestMs, ...witness } = await witnessFrom(trusted, checkpoints).catch(explain)
  const { chains, stoppedAt } = await verify(pages, { witness }).catch(explain)
  for (const chain of chains) console.log(lineOf(chain))
  const bad = chains.filter(({ firstBad }) => firstBad)
  console.log(
    newestMs === undefined
      ? 'No checkpoint was given: what was cut off at the end, or replaced as a whole, does not show.'
      : `The newest checkpoint that counts is of ${new Date(newestMs).toISOString()}.`,
  )
  if (stoppedAt) throw new CommandError('There are more chains than any system has.')
  if (bad.length > 0) throw new CommandError(`${bad.length} of ${chains.length} chains are not whole.`)
  console.log('Every chain is whole.')
}

function lineOf({ chain, events, head, firstBad }: ChainReport): string {
  const whole = `${chain}  ${events} events to number ${head.seq}  ${head.hash}`
  if (!firstBad) return whole
  const { seq, id, fault } = firstBad
  return `${whole}\n  first bad: number ${seq}${id === undefined ? '' : `, ${id}`}. ${fault}`
}

async function* linesOf(path: string): AsyncGenerator<string, void> {
  const input = createReadStream(path, 'utf8')
  yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
}

/** As monitor answers it, or the bare JWT. */
function checkpointOf(text: string, path: string): string {
  if (!text.startsWith('{')) return text
  return parsed(Answer, text, `${path} holds no checkpoint.`).checkpoint
}

function keysOf(text: string, path: string): PublicKey[] {
  const { keys } = parsed(v.object({ keys: v.array(v.unknown()) }), text, `${path} holds no JWK set.`)
  return keys.filter((key) => v.is(PublicKey, key)).map((key) => v.parse(PublicKey, key))
}

function parsed<Schema extends v.GenericSchema>(schema: Schema, text: string, fault: string): v.InferOutput<Schema> {
  try {
    return v.parse(schema, JSON.parse(text))
  } catch {
    throw new CommandError(fault)
  }
}

async function read(path: string): Promise<string> {
  return (await readFile(path, 'utf8').catch(explain)).trim()
}

/** A file that is not there, or is none of what it should be, needs no stack trace. */
function explain(error: unknown): never {
  throw error instanceof Error ? new CommandError(error.message) : error
}
