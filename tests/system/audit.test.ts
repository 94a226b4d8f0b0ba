import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { copyFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Db, type Document, MongoClient } from 'mongodb'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { type Answer, call, eventually, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { addOperator, describeLong, embeddedParts, newUser, noRealParts, type Parts, realParts } from './system.ts'

/** Someone who can do what they like with monitor's store, and with nothing else. It is attacked while nothing runs. */
interface Attacker {
  /** Takes a copy of all of it. Resolves with what brings that back. */
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

describeLong('on this machine alone', () => {
  describeAudit('embedded parts, one of each service', embeddedParts, embeddedAttacker, 1)
})
describe.skipIf(noRealParts !== undefined)('with a broker and a MongoDB-wire server', () => {
  describeAudit('real parts, two of each service', realParts, mongoAttacker, 2)
})

/** What an operator sees of attacks on the audit chains. Each test goes on where the one before it ended. */
function describeAudit(
  name: string,
  makeParts: () => Promise<Parts>,
  attackerOf: (parts: Parts) => Attacker,
  replicas: number,
): void {
  describe(`the audit on ${name}`, () => {
    let parts: Parts
    let attacker: Attacker
    let systems: System[] = []
    let operator: string

    async function start(): Promise<void> {
      // Addresses change at each start; who issued a token must not.
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
      operator = await addOperator(parts, last().gatewayUrl)
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
      eventually(
        () => ask('/audit/verify'),
        (answer) => {
          expect(answer.status).toBe(200)
          return JSON.stringify(answer.body).includes('"checkpoint"')
        },
      ).then((answer) => expect(answer.body).toMatchObject(body))

    /** Two events more, which monitor has. */
    async function live(): Promise<void> {
      const { id } = await newUser(last().gatewayUrl)
      const Items = v.object({ items: v.array(v.unknown()) })
      const ofUser = (answer: Answer) => expectBody(answer, 200, Items).items
      await eventually(
        () => ask(`/events?user=${id}`),
        (answer) => ofUser(answer).length === 2,
      )
    }

    /** The file of a checkpoint that names the end of each chain, once gateway has it. A gateway that starts signs one at once. */
    async function keepCheckpoint(): Promise<string> {
      await stop()
      await start()
      const { heads } = expectBody(await ask('/audit/heads'), 200, Heads)
      const answer = await eventually(
        () => ask('/audit/checkpoints/latest'),
        ({ status, body }) =>
          status === 200 &&
          JSON.stringify(headsOf(body)) === JSON.stringify(heads) &&
          v.parse(Latest, body).checkpoint === lastOfGateway(),
      )
      return write('kept.json', answer.body)
    }

    /** The one that gateway shows monitor next time: it stores it after monitor has. */
    function lastOfGateway(): unknown {
      using database = new Database(join(parts.dataDir, 'gateway.db'), { readonly: true })
      return database.query<{ jwt: string }, []>('SELECT jwt FROM checkpoints WHERE NOT forgotten').get()?.jwt
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

    async function run(tool: string, ...words: string[]): Promise<{ out: string; err: string; code: number }> {
      const child = Bun.spawn([process.execPath, tool, ...words], {
        cwd: REPOSITORY_ROOT,
        env: { ...process.env, ...parts.environment },
        stdout: 'pipe',
        stderr: 'pipe',
      })
      const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
      return { out, err, code: await child.exited }
    }
    const audit = (...words: string[]) => run('monitor/tools/audit.ts', ...words)

    const gatewaySays = (status: 'ok' | 'degraded') =>
      eventually(
        () => call('GET', `${systems[0]?.gatewayUrl}/health/ready`),
        ({ body }) =>
          v.is(v.object({ status: v.literal(status) }), body) &&
          (status === 'ok' || v.is(v.object({ parts: v.object({ audit: v.object({ detail: v.string() }) }) }), body)),
      )

    test('gateway signs the heads of the chains, monitor serves the checkpoint, and an export is whole by it', async () => {
      await live()
      const kept = await keepCheckpoint()
      await verified({ ok: true })
      const keys = await write('keys.json', (await call('GET', `${last().gatewayUrl}/.well-known/jwks.json`)).body)
      const file = join(parts.dataDir, 'export.ndjson')
      expect(await audit('export', '--out', file)).toEqual({ out: '', err: '', code: 0 })
      const whole = await audit('verify', file, '--checkpoint', kept, '--keys', keys)
      expect(whole).toMatchObject({ err: '', code: 0, out: expect.stringMatching(/\nEvery chain is whole\.\n$/) })
    }, 60_000)

    test('an old copy of the whole store looks whole; a newer checkpoint shows it, and gateway fails its check', async () => {
      await stop()
      const replay = await attacker.copy()
      await start()
      await live()
      const kept = await keepCheckpoint()
      await stop()
      await replay()
      expect(await audit('verify')).toMatchObject({ err: '', code: 0 })
      expect(await audit('verify', '--checkpoint', kept)).toMatchObject({
        code: 1,
        out: expect.stringMatching(/posta\.events\/\d .*\n {2}first bad: number \d+\. It is missing/),
      })
      await start()
      await gatewaySays('degraded')
      await verified({ ok: false })
    }, 60_000)

    const forget = () => run('gateway/tools/checkpoints.ts', 'forget')
    const FORGOTTEN = /^The checkpoint of \S+Z \(\d+ events?\) is forgotten\.\n/

    test('after it was restored on purpose, forgetting the checkpoint lets gateway sign anew, without a restart', async () => {
      expect(await forget()).toEqual({ out: expect.stringMatching(FORGOTTEN), err: '', code: 0 })
      await gatewaySays('ok')
      await keepCheckpoint()
      await verified({ ok: true })
    }, 60_000)

    test('a store that was replaced by a new one does not pass silently; forgetting the checkpoint accepts it', async () => {
      await stop()
      await attacker.wipe()
      await start()
      await gatewaySays('degraded')
      await verified({ ok: false })
      expect(await forget()).toEqual({ out: expect.stringMatching(FORGOTTEN), err: '', code: 0 })
      await live()
      await gatewaySays('ok')
      await eventually(
        () => ask('/audit/verify'),
        ({ body }) => v.is(v.object({ ok: v.literal(true), checkpoint: v.string() }), body),
      )
    }, 60_000)

    test('chains whose end was cut off look whole; a checkpoint shows it, and gateway fails its check', async () => {
      await live()
      const kept = await keepCheckpoint()
      await stop()
      await attacker.cutOff()
      expect(await audit('verify')).toMatchObject({ err: '', code: 0 })
      expect(await audit('verify', '--checkpoint', kept)).toMatchObject({ code: 1 })
      await start()
      await gatewaySays('degraded')
      await verified({ ok: false })
    }, 60_000)
  })
}
