import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Header } from '../../messages/message.ts'
import { type Group, groups, type Topic, topicSettings, topics } from '../../messages/topics.ts'
import { systemDeps } from '../../service/deps.ts'
import { isLong } from '../../testing/long.ts'
import { temporaryFolder } from '../../testing/temporary-folder.ts'
import { describeBroker, eventually, spawnChild } from '../broker.suite.ts'
import type { Broker } from '../broker.ts'
import { deleteOld, openEmbedded } from './embedded.ts'
import { type EmbeddedFile, openFile } from './file.ts'

describeBroker('the embedded broker', fresh, { takeoverMs: 5000, membersShare: false })

function fresh() {
  const folder = temporaryFolder()
  const path = join(folder.path, 'new', 'broker.sqlite')
  return {
    path,
    open: () => openEmbedded({ path }),
    child: { module: join(import.meta.dir, 'embedded.ts'), open: openEmbedded.name, options: { path } },
    dispose: folder.remove,
  }
}

/** A new file. At the end of the test everything that was opened there is closed, and the file removed. */
function scene() {
  const here = fresh()
  const cleanups: (() => unknown)[] = []
  return {
    ...here,
    cleanups,
    open(now = systemDeps.now): Broker {
      const broker = openEmbedded({ path: here.path, deps: { ...systemDeps, now } })
      cleanups.push(broker.close)
      return broker
    },
    file(): EmbeddedFile {
      const file = openFile(here.path)
      cleanups.push(file.release)
      return file
    },
    async [Symbol.asyncDispose]() {
      for (const cleanup of cleanups.toReversed()) await cleanup()
      here.dispose()
    },
  }
}

const message = (text: string, topic: Topic = topics.requests, headers: readonly Header[] = []) => ({
  topic,
  key: 'key',
  value: Buffer.from(text),
  headers,
})

async function collect(broker: Broker, topic: Topic, group: Group = groups.processor) {
  const texts: string[] = []
  const offsets: number[] = []
  const headers: Header[] = []
  const subscription = await broker.subscribe(group, [topic], async ({ messages }) => {
    for (const each of messages) {
      texts.push(Buffer.from(each.value ?? []).toString())
      offsets.push(each.offset)
      headers.push(...each.headers)
    }
  })
  return { subscription, texts, offsets, headers }
}

describe('a member of the embedded broker', () => {
  const row = ({ db }: EmbeddedFile) => {
    const select = db.query<{ beat: number; next: number }, [Group, Topic]>(
      'SELECT beat, next FROM consumer WHERE "group" = ? AND topic = ?',
    )
    return select.get(groups.processor, topics.requests) ?? { beat: -1, next: -1 }
  }

  test('raises its beat, so that it keeps its lease, though there is nothing to deliver', async () => {
    await using here = scene()
    await collect(here.open(), topics.requests)
    const file = here.file()
    const { beat } = row(file)
    await eventually(() => row(file).beat > beat, 'the beat rises')
  })

  test('that loses its lease while it handles a batch is told by its next beat, and commits nothing', async () => {
    await using here = scene()
    const [broker, file] = [here.open(), here.file()]
    let told: AbortSignal | undefined
    await broker.subscribe(groups.processor, [topics.requests], async ({ signal }) => {
      told = signal
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
    })
    await broker.publish([message('1')])
    await eventually(() => told !== undefined, 'the message is delivered')
    await file.write(() => file.db.run("UPDATE consumer SET owner = 'other', epoch = epoch + 1"))
    await eventually(() => told?.aborted === true, 'it learns that it lost the lease')
    expect(row(file).next).toBe(0)
  })

  test('that has lost its lease while it had nothing to do delivers nothing more', async () => {
    await using here = scene()
    const [broker, file] = [here.open(), here.file()]
    const got = await collect(broker, topics.requests)
    await eventually(() => got.subscription.lag().length === 1, 'it holds the lease')
    await file.write(() => file.db.run("UPDATE consumer SET owner = 'other', epoch = epoch + 1"))
    await broker.publish([message('1')])
    await eventually(() => got.subscription.lag().length === 0, 'it learns that it lost the lease')
    expect(got.texts).toEqual([])
  })

  test('that fails shows in the state, though the members for other topics are well', async () => {
    await using here = scene()
    const broker = here.open()
    let fails = true
    const subscription = await broker.subscribe(groups.processor, [topics.requests, topics.results], async () => {
      if (fails) throw new Error('The store is down (this test makes it so).')
    })
    expect(subscription.state()).toBe('running')
    await broker.publish([message('1')])
    await eventually(() => subscription.state() === 'recovering', 'the state says so')
    fails = false
    await eventually(() => subscription.state() === 'running', 'it is over')
  })
})

describe('the embedded broker', () => {
  test('refuses everything once it is closed, and says so', async () => {
    await using here = scene()
    const broker = here.open()
    await broker.close()
    const closed = 'The broker has been closed.'
    await expect(broker.publish([message('1')])).rejects.toThrow(closed)
    await expect(broker.publish([])).rejects.toThrow(closed)
    await expect(broker.subscribe(groups.processor, [topics.requests], async () => {})).rejects.toThrow(closed)
    await expect(broker.ping()).rejects.toThrow(closed)
  })

  test('has a lag for each topic where its member works, and none where it stands by', async () => {
    await using here = scene()
    const [one, two] = [here.open(), here.open()]
    const both = [topics.requests, topics.results]
    const working = await one.subscribe(groups.processor, both, async () => ({ heldFrom: 0 }))
    const standby = await two.subscribe(groups.processor, both, async () => {})
    await two.publish([message('1'), message('2'), message('3', topics.results)])
    const lags = [
      { topic: topics.requests, partition: 0, lag: 2 },
      { topic: topics.results, partition: 0, lag: 1 },
    ]
    await eventually(() => Bun.deepEquals(working.lag(), lags), 'the lag is that of each topic')
    expect(standby.lag()).toEqual([])
    expect(standby.state()).toBe('running')
    await working.close()
    await eventually(() => standby.lag().length === 2, 'the other takes over')
    expect(working.lag()).toEqual([])
  })
})

describe('the file of the embedded broker', () => {
  test('is synced at every commit', async () => {
    await using here = scene()
    const { db } = here.file()
    expect(db.query('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' })
    expect(db.query('PRAGMA synchronous').get()).toEqual({ synchronous: 2 })
  })

  test('can be made by four processes at once', async () => {
    await using here = scene()
    const { child, open } = here
    const texts = Array.from({ length: 50 }, (_, i) => `${i}`)
    const children = ['a', 'b', 'c', 'd'].map((key) =>
      spawnChild(child, { publish: { topic: topics.events, key, texts } }),
    )
    await Promise.all(children.map((each) => each.lines(50)))
    await Promise.all(children.map(({ gone }) => gone))
    const { offsets } = await collect(open(), topics.events)
    await eventually(() => offsets.length === 200, 'all messages arrive')
    expect(offsets).toEqual(Array.from({ length: 200 }, (_, i) => i))
  })

  test('has one connection in a process, which stays open until the last broker on it is closed', async () => {
    await using here = scene()
    const [one, two] = [here.open(), here.open()]
    const { db } = here.file()
    expect(here.file().db).toBe(db)
    const got = await collect(two, topics.requests)
    await one.publish([message('1')])
    await eventually(() => got.texts.length === 1, 'the other one hears of it')
    await one.close()
    await two.publish([message('2')])
    await eventually(() => got.texts.length === 2, 'the other one goes on')
    expect(here.file().db).toBe(db)
  })

  test('is closed with its last release', async () => {
    await using here = scene()
    const [one, two, broker] = [openFile(here.path), openFile(here.path), here.open()]
    one.release()
    await broker.close()
    expect(two.usedBytes()).toBeGreaterThan(0)
    two.release()
    expect(() => two.db.run('SELECT 1')).toThrow('closed')
  })

  test.each([
    [
      'no database',
      'file is not a database',
      (path: string) => writeFileSync(path, 'This is a text, and longer than a header.'.repeat(100)),
    ],
    [
      'of something else',
      'it holds something else',
      (path: string) => new Database(path).run('CREATE TABLE users (id)'),
    ],
    [
      'of another version',
      'another version of this program wrote it',
      (path: string) => new Database(path).run('PRAGMA user_version = 99'),
    ],
  ])('is refused, with its path and the reason, where it is %s', async (_, reason, write) => {
    await using here = scene()
    const { path } = here
    mkdirSync(join(path, '..'))
    write(path)
    expect(() => openEmbedded({ path })).toThrow(`The broker's file ${path} cannot be opened: ${reason}`)
  })

  test('can be opened while another process keeps it locked', async () => {
    await using here = scene()
    openFile(here.path).release()
    const other = new Database(here.path)
    here.cleanups.push(() => other.close())
    other.run('BEGIN IMMEDIATE')
    expect(here.file().messages(topics.requests).end()).toBe(0)
  })

  test('takes what is published at the same time in one transaction: all of it or nothing', async () => {
    await using here = scene()
    const file = here.file()
    const steps: string[] = []
    await Promise.all(
      ['a', 'b', 'c'].map((name) => file.write(() => steps.push(name)).then(() => steps.push('synced'))),
    )
    expect(steps).toEqual(['a', 'b', 'c', 'synced', 'synced', 'synced'])

    const broker = here.open()
    const joined = await Promise.allSettled([
      broker.publish([message('lost')]),
      file.write(() => {
        throw new Error('The disk is full (this test makes it so).')
      }),
      broker.publish([message('lost too')]),
    ])
    expect(joined.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(await broker.publish([message('kept')])).toEqual([{ topic: topics.requests, partition: 0, offset: 0 }])
  })

  test('refuses to publish while 64 MiB wait to be written', async () => {
    await using here = scene()
    const broker = here.open()
    const large = { ...message('', topics.deadLetters), value: new Uint8Array(2 * 1024 * 1024 - 3) }
    const published = await Promise.allSettled(Array.from({ length: 40 }, () => broker.publish([large])))
    const accepted = published.filter(({ status }) => status === 'fulfilled').length
    expect(accepted).toBeGreaterThan(25)
    expect(accepted).toBeLessThan(33)
    await broker.publish([large])
  })

  test('keeps headers in order, also where a name repeats', async () => {
    await using here = scene()
    const broker = here.open()
    const headers: Header[] = ['b', '1', 'a', 'b', '0'].map((name, i) => [name, Buffer.from([i, 0x80, 0xff])])
    await broker.publish([message('', topics.requests, headers)])
    const got = await collect(broker, topics.requests)
    await eventually(() => got.headers.length === 5, 'the message arrives')
    expect(got.headers).toEqual(headers)
  })
})

describe('old messages', () => {
  const { retentionMs } = topicSettings[topics.requests]
  const longAgo = () => Date.now() - retentionMs - 1000

  test('stay until every group that ever read the topic has committed them', async () => {
    await using here = scene()
    const broker = here.open(longAgo)
    await broker.publish(Array.from({ length: 250 }, (_, i) => message(`${i}`)))
    const fast = await collect(broker, topics.requests)
    const slow = await broker.subscribe(groups.monitor, [topics.requests], async () => ({ heldFrom: 120 }))
    await eventually(() => fast.texts.length === 250, 'the fast group is done')
    await eventually(() => slow.lag()[0]?.lag === 130, 'the slow group has done 120')
    await fast.subscription.close()
    await slow.close()
    await deleteOld(here.file(), Date.now())
    const late = await collect(here.open(), topics.requests, groups.gateway)
    await eventually(() => late.texts.length === 130, 'a new group gets what is left')
    expect(late.offsets[0]).toBe(120)
    await eventually(() => late.subscription.lag()[0]?.lag === 0, 'the lag is 0')
  })

  test('are deleted where no group ever read the topic, and their offsets are not used again', async () => {
    await using here = scene()
    await here.open(longAgo).publish([message('0'), message('1'), message('other', topics.events)])
    const broker = here.open()
    await broker.publish([message('2', topics.events)])
    await deleteOld(here.file(), Date.now())
    expect(await broker.publish([message('3')])).toEqual([{ topic: topics.requests, partition: 0, offset: 2 }])
    const [requests, events] = [await collect(broker, topics.requests), await collect(broker, topics.events)]
    await eventually(() => requests.texts.length + events.texts.length === 2, 'what is left arrives')
    expect([requests.texts, events.texts]).toEqual([['3'], ['2']])
  })

  test('stay for the retention of their topic although every group has committed them', async () => {
    await using here = scene()
    const broker = here.open()
    await broker.publish([message('kept')])
    const done = await collect(broker, topics.requests)
    await eventually(() => done.subscription.lag()[0]?.lag === 0 && done.texts.length === 1, 'it is done')
    await deleteOld(here.file(), Date.now() + retentionMs - 60_000)
    const late = await collect(broker, topics.requests, groups.monitor)
    await eventually(() => late.texts.length === 1, 'another group still gets it')
  })
})

describe('a file that is full', () => {
  const maxBytes = 1024 * 1024
  const large = (topic: Topic) => ({ ...message('', topic), value: new Uint8Array(20_000) })

  async function fill(here: ReturnType<typeof scene>) {
    const broker = openEmbedded({ path: here.path, maxBytes })
    here.cleanups.push(broker.close)
    const away = await broker.subscribe(groups.monitor, [topics.requests], async () => ({ heldFrom: 10 }))
    const first = await collect(broker, topics.requests)
    let published = 0
    const refused = await (async () => {
      for (; ; published++) await broker.publish([large(topics.requests)])
    })().catch((error: unknown) => error)
    await eventually(() => first.texts.length === published, 'the other group is done')
    await eventually(() => away.lag()[0]?.lag === published - 10, 'the group that goes away has done 10')
    await away.close()
    return { broker, refused, published }
  }

  test('takes no new work, but what follows from the messages that it holds', async () => {
    await using here = scene()
    const { broker, refused, published } = await fill(here)
    expect(String(refused)).toContain("The broker's file is full")
    expect(published).toBeGreaterThan(40)
    await expect(broker.publish([large(topics.events)])).rejects.toThrow('full')
    await expect(broker.publish([message('', topics.events), message('', topics.requests)])).rejects.toThrow('full')
    await broker.publish([large(topics.results)])
    await broker.publish([large(topics.deadLetters), message('', topics.events)])
  })

  test('has room again once the last group has caught up: above half, what all have committed is deleted, whatever its age', async () => {
    await using here = scene()
    const { broker, published } = await fill(here)
    const file = here.file()
    const oldest = () => file.messages(topics.requests).oldest()
    await deleteOld(file, Date.now(), maxBytes)
    expect(oldest()).toBe(10)

    const offsets: number[] = []
    await broker.subscribe(groups.monitor, [topics.requests], async ({ messages }) => {
      offsets.push(...messages.map(({ offset }) => offset))
    })
    await eventually(() => offsets.at(-1) === published - 1, 'the group that was away catches up')
    expect(offsets[0]).toBe(10)
    const next = () => file.db.query('SELECT min(next) AS next FROM consumer').get()
    await eventually(() => Bun.deepEquals(next(), { next: published }), 'it is past everything')
    await deleteOld(file, Date.now(), maxBytes)
    expect(file.usedBytes()).toBeLessThan(maxBytes)
    expect(oldest()).toBeGreaterThan(10)
    await broker.publish([large(topics.requests)])
  })

  test('keeps what no group ever read for the retention of its topic', async () => {
    await using here = scene()
    const { broker } = await fill(here)
    await broker.publish([large(topics.results)])
    await deleteOld(here.file(), Date.now(), maxBytes)
    expect(here.file().messages(topics.results).oldest()).toBe(0)
  })
})

describe.skipIf(!isLong)('another process', () => {
  test.concurrent('that held the lease, froze and was replaced cannot commit an offset when it goes on', async () => {
    await using here = scene()
    const { child, open, file, cleanups } = here
    const broker = open()
    const frozen = spawnChild(child, {
      subscribe: { group: groups.processor, topics: [topics.requests], hang: true },
    })
    cleanups.push(frozen.kill)
    await broker.publish([message('0'), message('1')])
    await frozen.lines(3)
    frozen.signal('SIGSTOP')
    const offsets: number[] = []
    await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
      offsets.push(...messages.map(({ offset }) => offset))
      return { heldFrom: 1 }
    })
    await eventually(() => offsets.length === 2, 'the frozen holder is replaced')
    frozen.signal('SIGCONT')
    frozen.resume()
    expect((await frozen.lines(4))[3]).toBe('resumed')
    const next = () => file().db.query('SELECT next FROM consumer').get()
    await eventually(() => Bun.deepEquals(next(), { next: 1 }), 'the offset is what the new holder says')
    await broker.publish([message('2')])
    await eventually(() => offsets.length === 3, 'the new holder goes on')
    expect(offsets).toEqual([0, 1, 2])
    expect(next()).toEqual({ next: 1 })
    expect(frozen.written).toHaveLength(4)
  }, 30_000)

  test.concurrent('that keeps the file locked blocks nothing else; what waits for the lock is refused after 5 s, and works again after that', async () => {
    await using here = scene()
    const { path, open, cleanups } = here
    const broker = open()
    await broker.publish([message('0')])
    const other = new Database(path)
    cleanups.push(() => other.close())
    other.run('BEGIN IMMEDIATE')
    let longestMs = 0
    let lastMs = performance.now()
    const ticking = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - lastMs)
      lastMs = performance.now()
    }, 1)
    cleanups.push(() => clearInterval(ticking))
    const published = broker.publish([message('refused')]).catch((error: unknown) => error)
    const pinged = broker.ping().catch((error: unknown) => error)
    expect(String(await pinged)).toContain("Locking the broker's file took longer than 3000 ms.")
    expect(String(await published)).toContain("Another process holds the broker's file locked.")
    expect(longestMs).toBeLessThan(500)
    const waiting = broker.publish([message('1')])
    other.run('ROLLBACK')
    expect(await waiting).toEqual([{ topic: topics.requests, partition: 0, offset: 1 }])
    await broker.ping()
  }, 30_000)
})
