import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { copyFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { type Db, type Document, MongoClient } from 'mongodb'
import * as v from 'valibot'
import { fileUrl } from '../../common/service/file-url.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { type Answer, askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { describeLong, describeOnParts, type MakeParts, type Parts } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { newOperator, newUser } from '../testing/users.ts'

/** Someone who can change everything in monitor's store, and nothing else. They do it while no service runs. */
interface Attacker {
  /** Copies the store. Resolves to a function that restores the copy. */
  copy(): Promise<() => Promise<void>>
  /** Deletes the last event of each chain, and every checkpoint. */
  cutOff(): Promise<void>
  /** Deletes everything. Whoever puts a new store in its place does the same. */
  wipe(): Promise<void>
}

function embeddedAttacker({ dataDir }: Parts): Attacker {
  const path = join(dataDir, 'monitor.db')
  return {
    async copy() {
      copyFileSync(path, `${path}.old`)
      return async () => {
        for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
        copyFileSync(`${path}.old`, path)
      }
    },
    async cutOff() {
      using store = new Database(path)
      store.run('DELETE FROM events WHERE (chain, seq) IN (SELECT chain, max(seq) FROM events GROUP BY chain)')
      store.run('DELETE FROM checkpoints')
    },
    async wipe() {
      for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true })
    },
  }
}

function mongoAttacker({ environment }: Parts): Attacker {
  async function attack(run: (database: Db) => Promise<void>): Promise<void> {
    const client = await new MongoClient(environment.MONITOR_STORE_URL ?? '').connect()
    await run(client.db()).finally(() => client.close())
  }
  return {
    async copy() {
      const copies = new Map<string, Document[]>()
      await attack(async (database) => {
        for (const name of ['events', 'checkpoints']) copies.set(name, await database.collection(name).find().toArray())
      })
      return () =>
        attack(async (database) => {
          for (const [name, documents] of copies) {
            await database.collection(name).deleteMany({})
            if (documents.length > 0) await database.collection(name).insertMany(documents)
          }
        })
    },
    cutOff: () =>
      attack(async (database) => {
        const events = database.collection<{ chain: string; seq: number }>('events')
        for (const [, ofChain] of Map.groupBy(await events.find().toArray(), ({ chain }) => chain)) {
          const lastSeq = Math.max(...ofChain.map(({ seq }) => seq))
          await events.deleteMany({ chain: ofChain[0]?.chain ?? '', seq: lastSeq })
        }
        await database.collection('checkpoints').deleteMany({})
      }),
    wipe: () => attack(async (database) => void (await database.dropDatabase())),
  }
}

const ChainHead = v.object({ chain: v.string(), seq: v.number(), hash: v.string() })
const Heads = v.object({ heads: v.array(ChainHead) })
const Latest = v.object({ time: v.string(), checkpoint: v.string() })

describeOnParts(describeLong, (makeParts, kind) => {
  if (kind === 'embedded') describeAudit(makeParts, embeddedAttacker, 1)
  else describeAudit(makeParts, mongoAttacker, 2)
})

/** What an operator sees of attacks on the audit chains. Each test goes on where the one before it ended. */
function describeAudit(makeParts: MakeParts, attackerOf: (parts: Parts) => Attacker, replicas: number): void {
  describe(`the audit, with ${replicas} of each service`, () => {
    let parts: Parts
    let attacker: Attacker
    let systems: System[] = []
    let operator: string

    async function start(): Promise<void> {
      // The addresses change at each start, and the issuer of the tokens must not.
      const environment = { ...parts.environment, TOKEN_ISSUER: 'http://gateway.test' }
      for (let replica = 0; replica < replicas; replica++) systems.push(await startInProcess(environment))
    }

    async function stop(): Promise<void> {
      for (const system of systems) await system.close()
      systems = []
    }

    beforeAll(async () => {
      parts = await makeParts()
      attacker = attackerOf(parts)
      await start()
      operator = await newOperator(parts.environment, last().gatewayUrl)
    }, 60_000)
    afterAll(async () => {
      await stop()
      await parts.dispose()
    }, 60_000)

    function last(): System {
      const system = systems.at(-1)
      if (!system) throw new Error('The system is stopped.')
      return system
    }

    const ask = (path: string) => call('GET', `${last().monitorUrl}${path}`, { token: operator })
    const verified = (body: object) =>
      askUntil(
        () => ask('/audit/verify'),
        (answer) => {
          expect(answer.status).toBe(200)
          return JSON.stringify(answer.body).includes('"checkpoint"')
        },
      ).then((answer) => expect(answer.body).toMatchObject(body))

    /** Makes two more events. Resolves when monitor has them. */
    async function makeEvents(): Promise<void> {
      const { id } = await newUser(last().gatewayUrl)
      const Items = v.object({ items: v.array(v.unknown()) })
      const ofUser = (answer: Answer) => expectBody(answer, 200, Items).items
      await askUntil(
        () => ask(`/events?user=${id}`),
        (answer) => ofUser(answer).length === 2,
      )
    }

    /** Writes a checkpoint of all chains as they are into a file, once gateway has it. A gateway signs one as soon as it starts. */
    async function keepCheckpoint(): Promise<string> {
      await stop()
      await start()
      const { heads } = expectBody(await ask('/audit/heads'), 200, Heads)
      let latest: unknown
      await eventually(async () => {
        const { status, body } = await ask('/audit/checkpoints/latest')
        latest = body
        return (
          status === 200 &&
          JSON.stringify(headsOf(body)) === JSON.stringify(heads) &&
          v.parse(Latest, body).checkpoint === (await lastOfGateway())
        )
      })
      return write('kept.json', latest)
    }

    /** The checkpoint that gateway shows monitor next time. Gateway stores it after monitor has. */
    async function lastOfGateway(): Promise<unknown> {
      // Two builds of SQLite in one process break each other's locks on a file: this is the one that gateway uses.
      const client = createClient({ url: fileUrl(parts.dataDir, 'gateway.db') })
      const { rows } = await client.execute('SELECT jwt FROM checkpoints WHERE NOT forgotten')
      client.close()
      return rows[0]?.jwt
    }

    const headsOf = (body: unknown) => {
      const [, claims = ''] = v.parse(Latest, body).checkpoint.split('.')
      return v.parse(Heads, JSON.parse(Buffer.from(claims, 'base64url').toString())).heads
    }

    async function write(file: string, content: unknown): Promise<string> {
      const path = join(parts.dataDir, file)
      await Bun.write(path, JSON.stringify(content))
      return path
    }

    const run = (...words: string[]) => runProgram(words, parts)
    const audit = (...words: string[]) => run('monitor/tools/audit.ts', ...words)

    const gatewayReports = (status: 'ok' | 'degraded') =>
      askUntil(
        () => call('GET', `${systems[0]?.gatewayUrl}/health/ready`),
        ({ body }) =>
          v.is(v.object({ status: v.literal(status) }), body) &&
          (status === 'ok' || v.is(v.object({ parts: v.object({ audit: v.object({ detail: v.string() }) }) }), body)),
      )

    test('an export is verified by the checkpoint that gateway signs and monitor serves', async () => {
      await makeEvents()
      const kept = await keepCheckpoint()
      await verified({ ok: true })
      const keys = await write('keys.json', (await call('GET', `${last().gatewayUrl}/.well-known/jwks.json`)).body)
      const file = join(parts.dataDir, 'export.ndjson')
      expect(await audit('export', '--out', file)).toEqual({ out: '', error: '', code: 0 })
      const whole = await audit('verify', file, '--checkpoint', kept, '--keys', keys)
      expect(whole).toMatchObject({ error: '', code: 0, out: expect.stringMatching(/\nEvery chain is whole\.\n$/) })
    }, 60_000)

    test('an old copy of a store passes by itself, but not by a later checkpoint, and gateway reports it', async () => {
      await stop()
      const replay = await attacker.copy()
      await start()
      await makeEvents()
      const kept = await keepCheckpoint()
      await stop()
      await replay()
      expect(await audit('verify')).toMatchObject({ error: '', code: 0 })
      expect(await audit('verify', '--checkpoint', kept)).toMatchObject({
        code: 1,
        out: expect.stringMatching(/posta\.events\/\d .*\n {2}first bad: number \d+\. It is missing/),
      })
      await start()
      await gatewayReports('degraded')
      await verified({ ok: false })
    }, 60_000)

    const forget = () => run('gateway/tools/checkpoints.ts', 'forget')
    const FORGOTTEN = /^The checkpoint of \S+Z \(\d+ events?\) is forgotten\.\n/

    test('after it was restored on purpose, forgetting the checkpoint lets gateway sign anew, without a restart', async () => {
      expect(await forget()).toEqual({ out: expect.stringMatching(FORGOTTEN), error: '', code: 0 })
      await gatewayReports('ok')
      await keepCheckpoint()
      await verified({ ok: true })
    }, 60_000)

    test('a store that was replaced by a new one does not pass silently; forgetting the checkpoint accepts it', async () => {
      await stop()
      await attacker.wipe()
      await start()
      await gatewayReports('degraded')
      await verified({ ok: false })
      expect(await forget()).toEqual({ out: expect.stringMatching(FORGOTTEN), error: '', code: 0 })
      await makeEvents()
      await gatewayReports('ok')
      await askUntil(
        () => ask('/audit/verify'),
        ({ body }) => v.is(v.object({ ok: v.literal(true), checkpoint: v.string() }), body),
      )
    }, 60_000)

    test('chains without their end pass by themselves, but not by a checkpoint, and gateway reports it', async () => {
      await makeEvents()
      const kept = await keepCheckpoint()
      await stop()
      await attacker.cutOff()
      expect(await audit('verify')).toMatchObject({ error: '', code: 0 })
      expect(await audit('verify', '--checkpoint', kept)).toMatchObject({ code: 1 })
      await start()
      await gatewayReports('degraded')
      await verified({ ok: false })
    }, 60_000)
  })
}
