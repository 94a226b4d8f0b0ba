// `bun run audit`: exports the audit chains, and verifies them, or an export, against what gateway has signed.
import { createReadStream } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { asCommand, CommandError } from '@posta/common/service/command.ts'
import { PublicKey } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'
import { type ChainReport, verify } from '../audit/chain.ts'
import { exportLines, readExport } from '../audit/export.ts'
import { trustedHeadsFrom } from '../audit/trusted-heads.ts'
import { readMonitorConfig } from '../config.ts'
import type { StoredEvent } from '../events/events.ts'
import { openStore, type Store } from '../store/store.ts'

const USAGE = `bun run audit export [--out FILE]
bun run audit verify [EXPORT] [--checkpoint FILE] [--keys FILE]

\`verify\` walks through the chains of EXPORT, or of the store that MONITOR_STORE_URL names. Its exit code is 0 only if they
are whole. With a checkpoint that was kept elsewhere (the answer of \`GET /audit/checkpoints/latest\`) it also finds what was
cut off, and what was replaced as a whole. With gateway's JWK set (\`/.well-known/jwks.json\`, kept elsewhere too) only
checkpoints that those keys have signed count.`

const fileFaults: Readonly<Record<string, string>> = {
  ENOENT: 'There is no such file or folder',
  EISDIR: 'This is a folder',
  EACCES: 'You may not open this file',
}

interface Trusted {
  readonly kept: string | undefined
  readonly keys: readonly PublicKey[] | undefined
}

await asCommand(() => run(process.argv.slice(2)))

async function run(args: string[]): Promise<void> {
  const { positionals, values } = parse(args)
  const [command, path, ...more] = positionals
  const { out, checkpoint, keys } = values
  if (command === 'export' && path === undefined && checkpoint === undefined && keys === undefined)
    return withStore((store) => exportTo(out, store))
  if (command !== 'verify' || more.length > 0 || out !== undefined) throw new CommandError(USAGE)
  const trusted = {
    kept: checkpoint === undefined ? undefined : checkpointOf(await read(checkpoint), checkpoint),
    keys: keys === undefined ? undefined : keysOf(await read(keys), keys),
  }
  if (path !== undefined) {
    const { checkpoints, pages } = await readExport(linesOf(path)).catch(explain)
    return report(checkpoints, pages, trusted)
  }
  return withStore(async ({ checkpoints, events }) => {
    const kept = await checkpoints.list({ limit: 1000 })
    await report(
      kept.map(({ jwt }) => jwt),
      events.inChainOrder(),
      trusted,
    )
  })
}

function parse(args: string[]) {
  try {
    const text = { type: 'string' } as const
    return parseArgs({ args, allowPositionals: true, options: { out: text, checkpoint: text, keys: text } })
  } catch {
    throw new CommandError(USAGE)
  }
}

async function withStore(use: (store: Store) => Promise<void>): Promise<void> {
  const store = openStore(readMonitorConfig(process.env).storeUrl)
  try {
    await use(store)
  } finally {
    await store.close()
  }
}

async function exportTo(path: string | undefined, store: Store): Promise<void> {
  // Events say who did what and when: only the owner may read the file.
  const file = path === undefined ? undefined : await open(path, 'w', 0o600).catch(explainFile(path))
  try {
    for await (const lines of exportLines(store)) await (file ? file.writeFile(lines) : Bun.write(Bun.stdout, lines))
    await file?.sync()
  } finally {
    await file?.close()
  }
}

async function report(
  checkpoints: readonly string[],
  pages: AsyncIterable<readonly StoredEvent[]>,
  trusted: Trusted,
): Promise<void> {
  const { atMs, ...trustedHeads } = await trustedHeadsFrom(trusted, checkpoints).catch(explain)
  const { chains, stoppedAt } = await verify(pages, { trustedHeads }).catch(explain)
  for (const chain of chains) console.log(lineOf(chain))
  const bad = chains.filter(({ firstBad }) => firstBad)
  console.log(
    atMs === undefined
      ? 'No checkpoint was given: what was cut off at the end, or replaced as a whole, does not show.'
      : `The newest checkpoint that counts is of ${new Date(atMs).toISOString()}.`,
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
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
  } catch (error) {
    explainFile(path)(error)
  }
}

/** The checkpoint in a file: monitor's answer, or the JWT alone. */
function checkpointOf(text: string, path: string): string {
  if (!text.startsWith('{')) return text
  return parsed(v.object({ checkpoint: v.string() }), text, `${path} holds no checkpoint.`).checkpoint
}

function keysOf(text: string, path: string): PublicKey[] {
  const { keys } = parsed(v.object({ keys: v.array(v.unknown()) }), text, `${path} holds no JWK set.`)
  return keys.filter((key) => v.is(PublicKey, key)).map((key) => v.parse(PublicKey, key))
}

function parsed<Schema extends v.GenericSchema>(schema: Schema, text: string, fault: string): v.InferOutput<Schema> {
  const read = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text)
  if (!read.success) throw new CommandError(fault)
  return read.output
}

async function read(path: string): Promise<string> {
  return (await readFile(path, 'utf8').catch(explainFile(path))).trim()
}

/** What a file holds and what the chains are need no stack trace. */
function explain(error: unknown): never {
  throw error instanceof Error ? new CommandError(error.message) : error
}

function explainFile(path: string): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof Error)) throw error
    const fault = 'code' in error ? fileFaults[String(error.code)] : undefined
    throw new CommandError(`${fault ?? error.message}: ${path}`)
  }
}
