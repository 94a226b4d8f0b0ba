import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Delivered, type Header, type Outgoing, type RecordPosition, sizeBytes } from '../messages/message.ts'
import { type Group, groups, type Topic, topicSettings, topics } from '../messages/topics.ts'
import { isLong } from '../testing/long.ts'
import type { ChildTarget, ChildTask } from './broker.suite.child.ts'
import { type Batch, type BatchHandler, type Broker, MessageTooLarge } from './broker.ts'

/** A new server or file of a broker, without topics, messages and offsets. */
export interface Fresh {
  /** Opens a client of its own, as each service does. */
  open(): Broker | Promise<Broker>
  readonly child: ChildTarget
  /** Called after every client and child has ended. */
  dispose(): void | Promise<void>
}

export interface Traits {
  /** How long after its SIGKILL a member is replaced by one that stands by, at most. */
  readonly takeoverMs: number
  /** Whether the members of a group share its partitions. If not, one works while the others stand by. */
  readonly membersShare: boolean
}

/** The promises of the port (broker.ts) as tests. Each test gets its own server or file from `fresh`. */
export function describeBroker(name: string, fresh: () => Fresh | Promise<Fresh>, traits: Traits): void {
  const timeoutMs = 30_000 + 2 * traits.takeoverMs

  function promise(
    guarantee: string,
    body: (here: Here) => Promise<void>,
    run: typeof test.concurrent | typeof test.skip = test,
  ): void {
    const inPlace = async () => {
      await using here = await setUp(fresh)
      await body(here)
    }
    run(guarantee, inPlace, timeoutMs)
  }

  describe(`${name} keeps the broker's promises:`, () => {
    promise('a message reaches a group with its key, value, headers and position', async ({ open }) => {
      const broker = await open()
      const headers: Header[] = [
        ['ce_id', Buffer.from('1')],
        ['twice', Buffer.from('first')],
        ['twice', Buffer.from([0xff, 0x00, 0x80])],
        ['empty', new Uint8Array()],
      ]
      const value = Uint8Array.from({ length: 256 }, (_, byte) => byte)
      const before = Date.now()
      const [position] = await broker.publish([{ topic: topics.requests, key: 'ключ', value, headers }])
      const got = await subscribe(broker, groups.processor, [topics.requests])
      const [message] = await got.atLeast(1)
      expect(Buffer.from(message?.key ?? []).toString()).toBe('ключ')
      expect(Buffer.from(message?.value ?? [])).toEqual(Buffer.from(value))
      // Only headers of the same name keep their order.
      for (const name of new Set(headers.map(([each]) => each))) {
        expect(valuesOf(message?.headers, name)).toEqual(valuesOf(headers, name))
      }
      expect(message?.headers).toHaveLength(headers.length)
      expect(positionOf(message)).toEqual(positionOf(position))
      expect(Math.abs((message?.timestampMs ?? 0) - before)).toBeLessThan(60_000)
    })

    promise('an empty value is delivered as an empty value', async ({ open }) => {
      const broker = await open()
      await broker.publish([{ ...small('a', ''), value: new Uint8Array() }])
      const got = await subscribe(broker, groups.processor, [topics.requests])
      const [message] = await got.atLeast(1)
      expect(message?.value).toHaveLength(0)
    })

    promise(
      'publish resolves with the position of each message, in the order given, over topics and keys',
      async ({ open }) => {
        const broker = await open()
        const outgoing = Array.from({ length: 200 }, (_, i) =>
          small(`key-${i % 17}`, `message ${i}`, i % 3 === 0 ? topics.events : topics.requests),
        )
        const published = new Map<string, string>()
        const record = (messages: readonly Outgoing[], positions: readonly RecordPosition[]) => {
          expect(positions.map((position) => position.topic)).toEqual(messages.map((message) => message.topic))
          positions.forEach((position, i) => {
            published.set(positionOf(position), textOf(messages[i]))
          })
        }
        const [first, second] = [outgoing.slice(0, 120), outgoing.slice(120)]
        const both = await Promise.all([broker.publish(first), broker.publish(second)])
        record(first, both[0])
        record(second, both[1])
        expect(published.size).toBe(200)
        const got = await subscribe(broker, groups.monitor, [topics.events, topics.requests])
        const messages = await got.atLeast(200)
        expect(new Map(messages.map((message) => [positionOf(message), textOf(message)]))).toEqual(published)
      },
    )

    promise('publishing no messages resolves with no positions', async ({ open }) => {
      expect(await (await open()).publish([])).toEqual([])
    })

    promise(
      'messages of one key arrive in the order in which publish was called, also where calls overlap',
      async ({ open }) => {
        const broker = await open()
        const got = await subscribe(broker, groups.processor, [topics.requests])
        const keys = ['a', 'b', 'c', 'd', 'e']
        const calls = Array.from({ length: 60 }, (_, call) =>
          broker.publish(keys.flatMap((key) => [small(key, `${2 * call}`), small(key, `${2 * call + 1}`)])),
        )
        await Promise.all(calls)
        const messages = await got.atLeast(600)
        for (const key of keys) {
          const numbers = messages.filter((message) => keyOf(message) === key).map((message) => Number(textOf(message)))
          expect(numbers).toEqual(Array.from({ length: 120 }, (_, i) => i))
        }
      },
    )

    promise(
      'a partition has one handler at a time, and its batches follow each other without a gap',
      async ({ open }) => {
        const broker = await open()
        const running = new Map<string, number>()
        const next = new Map<string, number>()
        const got = await subscribe(
          broker,
          groups.processor,
          [topics.requests],
          async ({ topic, partition, messages }) => {
            const id = `${topic}/${partition}`
            expect(running.get(id) ?? 0).toBe(0)
            running.set(id, 1)
            for (const message of messages) {
              expect(message.offset).toBe(next.get(id) ?? 0)
              next.set(id, message.offset + 1)
            }
            await Bun.sleep(1)
            running.set(id, 0)
          },
        )
        for (let call = 0; call < 30; call++) {
          await broker.publish(Array.from({ length: 10 }, (_, i) => small(`key-${i}`, 'x')))
        }
        await got.atLeast(300)
        await got.subscription.close()
        expect([...next.values()].reduce((sum, offset) => sum + offset, 0)).toBe(300)
      },
    )

    promise('a handler that waits in one topic does not hold up another topic', async ({ open }) => {
      const broker = await open()
      const gate = Promise.withResolvers<void>()
      const got = await subscribe(broker, groups.monitor, [topics.requests, topics.events], async ({ topic }) => {
        if (topic === topics.requests) await gate.promise
      })
      await broker.publish([small('a', 'waits'), small('a', 'goes on', topics.events)])
      expect((await got.atLeast(1)).map(textOf)).toEqual(['goes on'])
      gate.resolve()
      expect((await got.atLeast(2)).map(textOf)).toEqual(['goes on', 'waits'])
    })

    promise('a batch has at most 500 messages and about 1 MiB', async ({ open }) => {
      const broker = await open()
      const batches: { count: number; bytes: number }[] = []
      await broker.publish(Array.from({ length: 1300 }, (_, i) => small('a', `${i}`)))
      await broker.publish(Array.from({ length: 400 }, () => ({ ...small('a', ''), value: new Uint8Array(10_000) })))
      const got = await subscribe(broker, groups.processor, [topics.requests], async ({ messages }) => {
        const bytes = messages.reduce((sum, { key, value }) => sum + (key?.length ?? 0) + (value?.length ?? 0), 0)
        batches.push({ count: messages.length, bytes })
      })
      await got.atLeast(1700)
      expect(Math.max(...batches.map(({ count }) => count))).toBeLessThanOrEqual(500)
      expect(Math.max(...batches.map(({ bytes }) => bytes))).toBeLessThanOrEqual(1.25 * 1024 * 1024)
      expect(batches.length).toBeLessThan(300)
    })

    promise('a new group begins at the oldest message', async ({ open }) => {
      const broker = await open()
      await broker.publish([small('a', 'before 1'), small('a', 'before 2')])
      const got = await subscribe(broker, groups.monitor, [topics.requests])
      await got.atLeast(2)
      await broker.publish([small('a', 'after')])
      expect((await got.atLeast(3)).map(textOf)).toEqual(['before 1', 'before 2', 'after'])
    })

    promise('each group gets every message', async ({ open }) => {
      const [mine, theirs] = [await open(), await open()]
      const texts = Array.from({ length: 50 }, (_, i) => `${i}`)
      const one = await subscribe(mine, groups.gateway, [topics.results])
      await mine.publish(texts.map((text) => small('a', text, topics.results)))
      const two = await subscribe(theirs, groups.monitor, [topics.results])
      expect((await one.atLeast(50)).map(textOf)).toEqual(texts)
      expect((await two.atLeast(50)).map(textOf)).toEqual(texts)
    })

    promise('what one process publishes reaches a subscriber in another', async ({ open, startChild }) => {
      const broker = await open()
      const child = startChild({ subscribe: { group: groups.processor, topics: [topics.requests], hang: false } })
      await child.lines(1)
      await broker.publish([small('a', 'across')])
      expect((await child.lines(2))[1]).toMatchObject({ text: 'across', topic: topics.requests })
    })

    promise(
      'after a throw of the handler the same messages are delivered again, in order, until it resolves',
      async ({ open }) => {
        const broker = await open()
        let isDown = true
        const attempts: string[][] = []
        const got = await subscribe(broker, groups.processor, [topics.requests], async ({ messages }) => {
          attempts.push(messages.map(textOf))
          if (isDown) throw new Error('The store is down (this test makes it so).')
        })
        await broker.publish([small('a', '1'), small('a', '2')])
        await eventually(() => attempts.length >= 2 && got.subscription.state() === 'recovering', 'it is recovering')
        expect(got.subscription.lag().reduce((sum, { lag }) => sum + lag, 0)).toBeGreaterThan(0)
        isDown = false
        await broker.publish([small('a', '3')])
        expect((await got.atLeast(3)).map(textOf)).toEqual(['1', '2', '3'])
        await eventually(() => got.subscription.state() === 'running', 'it runs again')
        for (const attempt of attempts.slice(0, -2)) expect(attempt[0]).toBe('1')
      },
    )

    promise('after a throw delivery begins again at the held offset', async ({ open }) => {
      const broker = await open()
      let calls = 0
      const got = await subscribe(broker, groups.processor, [topics.requests], async () => {
        calls++
        if (calls === 1) return { heldFrom: 0 }
        if (calls === 2) throw new Error('The store is down (this test makes it so).')
        return undefined
      })
      await broker.publish([small('a', '0')])
      await got.atLeast(1)
      await broker.publish([small('a', '1')])
      expect((await got.atLeast(3)).map(textOf)).toEqual(['0', '0', '1'])
    })

    promise('a TypeError of a handler is a throw like any other', async ({ open }) => {
      const broker = await open()
      let calls = 0
      const got = await subscribe(broker, groups.processor, [topics.requests], async () => {
        calls++
        if (calls === 1) throw new TypeError('undefined is not a function (this test makes it so)')
      })
      await broker.publish([small('a', '1')])
      await got.atLeast(1)
      expect(calls).toBe(2)
    })

    promise('the committed offset survives a restart: only what came after it is delivered', async ({ open }) => {
      const before = await open()
      const got = await subscribe(before, groups.processor, [topics.requests])
      await before.publish([small('a', '1'), small('a', '2')])
      await got.atLeast(2)
      await before.close()
      const after = await open()
      await after.publish([small('a', '3')])
      const again = await subscribe(after, groups.processor, [topics.requests])
      expect((await again.atLeast(1)).map(textOf)).toEqual(['3'])
    })

    promise(
      'a message is kept although its publisher is killed at the moment that publish resolves',
      async ({ open, startChild }) => {
        const texts = Array.from({ length: 20 }, (_, i) => `${i}`)
        const child = startChild({ publish: { topic: topics.requests, key: 'a', texts } })
        const positions = await child.lines(20)
        await child.gone
        const got = await subscribe(await open(), groups.processor, [topics.requests])
        const messages = await got.atLeast(20)
        expect(messages.map(textOf)).toEqual(texts)
        expect(messages.map(positionOf)).toEqual(positions.map(positionOf))
      },
    )

    const killedLater = 'the messages that a killed member was handling are delivered to one that starts later'
    const starts = async ({ open, startChild }: Here) => {
      const broker = await open()
      await broker.publish([small('a', '1'), small('a', '2')])
      const child = startChild({ subscribe: { group: groups.processor, topics: [topics.requests], hang: true } })
      await child.lines(2)
      await child.kill()
      const got = await subscribe(broker, groups.processor, [topics.requests])
      expect((await got.atLeast(2, timeoutMs)).map(textOf)).toEqual(['1', '2'])
    }

    const replaced = `a member that is killed is replaced by one that stands by, within ${traits.takeoverMs} ms`
    const standsBy = async ({ open, startChild }: Here) => {
      const broker = await open()
      const child = startChild({ subscribe: { group: groups.processor, topics: [topics.requests], hang: true } })
      await child.lines(1)
      const got = await subscribe(broker, groups.processor, [topics.requests])
      // Where members share, the key must be one of the child's: publish until one message has reached it.
      let reached: Line | undefined
      for (let i = 0; !reached; i++) {
        await broker.publish([small(`key-${i}`, `${i}`)])
        await eventually(() => got.messages.length + child.written.length - 1 > i, 'each message reaches a member')
        reached = child.written.find((line) => line !== 'open')
      }
      const position = positionOf(reached)
      await child.kill()
      const killedAtMs = performance.now()
      await eventually(
        () => got.messages.some((message) => positionOf(message) === position),
        'it is replaced',
        timeoutMs,
      )
      expect(performance.now() - killedAtMs).toBeLessThan(traits.takeoverMs)
    }

    const atOnce = isLong ? test.concurrent : test.skip
    // Both wait until the killed member counts as dead, so they run at the same time.
    promise(killedLater, starts, atOnce)
    promise(replaced, standsBy, atOnce)

    promise('close waits for the running handler and commits its batch', async ({ open }) => {
      const broker = await open()
      const gate = Promise.withResolvers<void>()
      let aborted = false
      const got = await subscribe(broker, groups.processor, [topics.requests], async ({ signal }) => {
        await gate.promise
        aborted = signal.aborted
      })
      await broker.publish([small('a', '1')])
      await eventually(() => got.started > 0, 'the handler runs')
      let closed = false
      const closing = got.subscription.close(20_000).then(() => {
        closed = true
      })
      await broker.ping()
      expect(closed).toBe(false)
      gate.resolve()
      await closing
      await got.subscription.ended
      expect(aborted).toBe(false)
      await broker.publish([small('a', '2')])
      const again = await subscribe(broker, groups.processor, [topics.requests])
      expect((await again.atLeast(1)).map(textOf)).toEqual(['2'])
      expect(got.messages.map(textOf)).toEqual(['1'])
    })

    promise(
      'close aborts the signal of a handler that outlasts the grace, and its batch is delivered again',
      async ({ open }) => {
        const broker = await open()
        const got = await subscribe(broker, groups.processor, [topics.requests], async (batch) => {
          await new Promise<void>((resolve) => batch.signal.addEventListener('abort', () => resolve(), { once: true }))
          await batch.commit(batch.messages.length)
          throw new Error('Stopped before it was done.')
        })
        await broker.publish([small('a', '1')])
        await eventually(() => got.started > 0, 'the handler runs')
        await got.subscription.close(10)
        const again = await subscribe(broker, groups.processor, [topics.requests])
        expect((await again.atLeast(1)).map(textOf)).toEqual(['1'])
      },
    )

    promise('closing the broker closes its subscriptions and finishes its publishes', async ({ open }) => {
      const broker = await open()
      const got = await subscribe(broker, groups.processor, [topics.requests])
      const published = broker.publish([small('a', '1')])
      await broker.close()
      expect(await published).toHaveLength(1)
      await got.subscription.ended
      await expect(broker.publish([small('a', '2')])).rejects.toThrow()
      await broker.close()
      const again = await subscribe(await open(), groups.gateway, [topics.requests])
      expect((await again.atLeast(1)).map(textOf)).toEqual(['1'])
    })

    promise('a handler that runs while its broker closes can still publish', async ({ open }) => {
      const broker = await open()
      const gate = Promise.withResolvers<void>()
      const got = await subscribe(broker, groups.processor, [topics.requests], async () => {
        await gate.promise
        await broker.publish([small('a', 'answer', topics.results)])
      })
      await broker.publish([small('a', 'question')])
      await eventually(() => got.started > 0, 'the handler runs')
      const closing = broker.close()
      gate.resolve()
      await closing
      const answers = await subscribe(await open(), groups.gateway, [topics.results])
      expect((await answers.atLeast(1)).map(textOf)).toEqual(['answer'])
      expect(got.messages.map(textOf)).toEqual(['question'])
    })

    promise('a message of 256 KiB and 400 of 10 KB arrive whole from one publish', async ({ open }) => {
      const broker = await open()
      const large = { ...small('large', ''), value: new Uint8Array(256 * 1024 - 5).fill(7) }
      const many = Array.from({ length: 400 }, (_, i) => ({
        ...small('many', ''),
        value: Buffer.alloc(10_000, `${i};`),
      }))
      expect(sizeBytes(large)).toBe(256 * 1024)
      const positions = await broker.publish([large, ...many])
      const got = await subscribe(broker, groups.processor, [topics.requests])
      const values = new Map((await got.atLeast(401)).map((message) => [positionOf(message), message.value]))
      positions.forEach((position, i) => {
        const sent = Buffer.from((i === 0 ? large : many[i - 1])?.value ?? [])
        expect(sent.equals(values.get(positionOf(position)) ?? new Uint8Array())).toBe(true)
      })
    })

    promise('a message of the largest size that its topic takes arrives', async ({ open }) => {
      const broker = await open()
      const largest = (topic: Topic) => ({
        ...small('a', '', topic),
        value: new Uint8Array(topicSettings[topic].maxMessageBytes - 1),
      })
      await broker.publish([largest(topics.requests), largest(topics.deadLetters)])
      const got = await subscribe(broker, groups.monitor, [topics.requests, topics.deadLetters])
      const lengths = (await got.atLeast(2)).map((message) => message.value?.length)
      expect(lengths.sort()).toEqual([1024 * 1024 - 1, 2 * 1024 * 1024 - 1])
    })

    promise(
      'a message that is too large is refused, with its topic and size, before anything is sent',
      async ({ open }) => {
        const broker = await open()
        const limit = topicSettings[topics.requests].maxMessageBytes
        const tooLarge = { ...small('a', ''), value: new Uint8Array(limit) }
        const refusal = await broker.publish([small('a', 'never sent'), tooLarge]).catch((error: unknown) => error)
        expect(refusal).toBeInstanceOf(MessageTooLarge)
        expect(String(refusal)).toContain(`${topics.requests} has ${limit + 1} bytes`)
        await broker.publish([small('a', 'sent')])
        const got = await subscribe(broker, groups.processor, [topics.requests])
        expect((await got.atLeast(1)).map(textOf)).toEqual(['sent'])
      },
    )

    promise('a message takes as many headers as its topic allows, and is refused with one more', async ({ open }) => {
      const broker = await open()
      const { maxHeaders } = topicSettings[topics.requests]
      const headers = Array.from({ length: maxHeaders }, (_, n): Header => [`h${n}`, Buffer.from('v')])
      const tooMany = { ...small('a', ''), headers: [...headers, ['one', Buffer.from('more')] as const] }
      const refusal = await broker.publish([small('a', 'never sent'), tooMany]).catch((error: unknown) => error)
      expect(refusal).toBeInstanceOf(MessageTooLarge)
      expect(String(refusal)).toContain(`${topics.requests} has ${maxHeaders + 1} headers`)
      await broker.publish([{ ...small('a', 'sent'), headers }])
      const got = await subscribe(broker, groups.processor, [topics.requests])
      const [message] = await got.atLeast(1)
      expect(message).not.toHaveProperty('unreadable')
      expect(message?.headers).toHaveLength(maxHeaders)
    })

    promise(
      'later batches arrive while heldFrom holds the offset; after a restart delivery begins at the held offset',
      async ({ open }) => {
        const broker = await open()
        const got = await subscribe(broker, groups.processor, [topics.requests], async () => ({ heldFrom: 1 }))
        await broker.publish([small('a', '0'), small('a', '1'), small('a', '2')])
        await got.atLeast(3)
        await broker.publish([small('a', '3')])
        await got.atLeast(4)
        expect(got.messages.map(textOf)).toEqual(['0', '1', '2', '3'])
        await got.subscription.close()
        const again = await subscribe(broker, groups.processor, [topics.requests])
        expect((await again.atLeast(3)).map(textOf)).toEqual(['1', '2', '3'])
      },
    )

    promise('commit moves a held offset forward, never back', async ({ open }) => {
      const broker = await open()
      const batches: Batch[] = []
      const got = await subscribe(broker, groups.processor, [topics.requests], async (batch) => {
        batches.push(batch)
        return { heldFrom: 0 }
      })
      await broker.publish([small('a', '0'), small('a', '1'), small('a', '2')])
      await got.atLeast(3)
      await broker.publish([small('a', '3')])
      await got.atLeast(4)
      await batches[0]?.commit(2)
      await batches[0]?.commit(1)
      await got.subscription.close()
      await batches[0]?.commit(4)
      const again = await subscribe(broker, groups.processor, [topics.requests])
      expect((await again.atLeast(2)).map(textOf)).toEqual(['2', '3'])
    })

    promise('a commit while a later batch is being handled skips nothing', async ({ open }) => {
      const broker = await open()
      const gate = Promise.withResolvers<void>()
      const batches: Batch[] = []
      const got = await subscribe(broker, groups.processor, [topics.requests], async (batch) => {
        batches.push(batch)
        if (batches.length === 1) return { heldFrom: 0 }
        await gate.promise
        return undefined
      })
      await broker.publish([small('a', '0')])
      await got.atLeast(1)
      await broker.publish([small('a', '1')])
      await eventually(() => batches.length === 2, 'the second batch is being handled')
      await broker.publish([small('a', '2'), small('a', '3')])
      const lag = () => got.subscription.lag().reduce((sum, each) => sum + each.lag, 0)
      await eventually(() => lag() === 4, 'the others have arrived')
      await batches[0]?.commit(2)
      gate.resolve()
      expect((await got.atLeast(4)).map(textOf)).toEqual(['0', '1', '2', '3'])
    })

    promise('lag is the number of messages beyond the committed offset, and falls to 0', async ({ open }) => {
      const broker = await open()
      const gate = Promise.withResolvers<void>()
      const got = await subscribe(broker, groups.processor, [topics.requests], () => gate.promise)
      const lag = () => got.subscription.lag().reduce((sum, each) => sum + each.lag, 0)
      await broker.publish([small('a', '1'), small('a', '2'), small('a', '3')])
      await eventually(() => lag() === 3, 'the lag is 3')
      gate.resolve()
      await eventually(() => lag() === 0, 'the lag is 0')
      expect(got.subscription.lag().every(({ topic }) => topic === topics.requests)).toBe(true)
    })

    promise('ping resolves while the broker answers', async ({ open }) => {
      await (await open()).ping()
    })

    if (traits.membersShare) {
      promise('two members share the partitions: each partition has one of them', async ({ open }) => {
        const [one, two] = [await open(), await open()]
        const [mine, theirs] = await Promise.all([
          subscribe(one, groups.processor, [topics.requests]),
          subscribe(two, groups.processor, [topics.requests]),
        ])
        let sent = 0
        await eventually(async () => {
          await one.publish(Array.from({ length: 20 }, (_, i) => small(`key-${i}`, `${sent + i}`)))
          sent += 20
          return mine.messages.length > 0 && theirs.messages.length > 0
        }, 'both get messages')
        // The partitions are assigned now: from here on each has one member.
        const [mineBefore, theirsBefore] = [mine.messages.length, theirs.messages.length]
        await one.publish(Array.from({ length: 60 }, (_, i) => small(`key-${i}`, `last ${i}`)))
        await eventually(() => {
          const texts = [...mine.messages, ...theirs.messages].map(textOf)
          return new Set(texts).size === sent + 60
        }, 'every message arrives')
        const partitions = (messages: readonly Delivered[]) => new Set(messages.map(({ partition }) => partition))
        const [ours, others] = [
          partitions(mine.messages.slice(mineBefore)),
          partitions(theirs.messages.slice(theirsBefore)),
        ]
        expect([...ours].filter((partition) => others.has(partition))).toEqual([])
      })
    } else {
      promise(
        'one member of a group works while another stands by, and takes over when it closes',
        async ({ open }) => {
          const [one, two] = [await open(), await open()]
          const active = await subscribe(one, groups.processor, [topics.requests])
          await one.publish([small('a', '1')])
          await active.atLeast(1)
          const standby = await subscribe(two, groups.processor, [topics.requests])
          await one.publish([small('a', '2')])
          await active.atLeast(2)
          expect(standby.subscription.state()).toBe('running')
          await active.subscription.close()
          await two.publish([small('a', '3')])
          expect((await standby.atLeast(1)).map(textOf)).toEqual(['3'])
        },
      )
    }
  })
}

interface Here extends AsyncDisposable {
  open(): Promise<Broker>
  startChild(task: ChildTask): Child
}

/** A new server or file. Everything that was opened there is closed at the end. */
async function setUp(fresh: () => Fresh | Promise<Fresh>): Promise<Here> {
  const cluster = await fresh()
  const brokers: Broker[] = []
  const children: Child[] = []
  return {
    async open() {
      const broker = await cluster.open()
      brokers.push(broker)
      return broker
    },
    startChild(task) {
      const child = spawnChild(cluster.child, task)
      children.push(child)
      return child
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...brokers.map((broker) => broker.close()), ...children.map((child) => child.kill())])
      await cluster.dispose()
    },
  }
}

type Line = (RecordPosition & { readonly text: string }) | 'open' | 'resumed'

interface Child {
  /** What it has written so far. */
  readonly written: readonly Line[]
  /** Resolves once it has written `count` lines. Rejects if it ends before. */
  lines(count: number): Promise<readonly Line[]>
  /** Sends it a line. */
  resume(): void
  signal(name: 'SIGSTOP' | 'SIGCONT'): void
  /** Sends SIGKILL. Resolves when the process has ended. */
  kill(): Promise<void>
  readonly gone: Promise<unknown>
}

export function spawnChild(target: ChildTarget, task: ChildTask): Child {
  const written: Line[] = []
  const script = join(import.meta.dir, 'broker.suite.child.ts')
  const child = Bun.spawn([process.execPath, script, JSON.stringify({ target, task })], {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'inherit',
  })
  const read = (async () => {
    let rest = ''
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) written.push(JSON.parse(line))
    }
  })()
  let ended = false
  const gone = Promise.all([child.exited, read]).finally(() => {
    ended = true
  })
  return {
    written,
    async lines(count) {
      await eventually(() => ended || written.length >= count, `the child writes ${count} lines`)
      if (written.length < count) throw new Error(`The child ended after ${written.length} lines of ${count}.`)
      return written
    },
    resume() {
      child.stdin.write('\n')
      child.stdin.flush()
    },
    signal: (name) => child.kill(name),
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
    gone,
  }
}

/** Subscribes. `messages` are those whose handler has resolved. */
async function subscribe(broker: Broker, group: Group, to: readonly Topic[], handle?: BatchHandler) {
  const messages: Delivered[] = []
  let started = 0
  const subscription = await broker.subscribe(group, to, async (batch) => {
    started++
    const held = await handle?.(batch)
    messages.push(...batch.messages)
    return held
  })
  return {
    subscription,
    messages,
    get started() {
      return started
    },
    async atLeast(count: number, withinMs?: number): Promise<readonly Delivered[]> {
      await eventually(() => messages.length >= count, `${count} messages arrive`, withinMs)
      return messages
    },
  }
}

function small(key: string, text: string, topic: Topic = topics.requests): Outgoing {
  return { topic, key, value: Buffer.from(text), headers: [] }
}

function textOf(message: { readonly value: Uint8Array | null } | undefined): string {
  return Buffer.from(message?.value ?? []).toString()
}

function keyOf({ key }: Delivered): string {
  return Buffer.from(key ?? []).toString()
}

function positionOf(position: RecordPosition | string | undefined): string {
  return typeof position === 'object' ? `${position.topic}/${position.partition}/${position.offset}` : 'no position'
}

function valuesOf(headers: readonly Header[] | undefined, name: string): string[] {
  return (headers ?? []).filter(([each]) => each === name).map(([, value]) => Buffer.from(value).toString('hex'))
}

/** Resolves once `condition` holds. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  withinMs = 20_000,
): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${withinMs} ms but not: ${what}.`)
    await Bun.sleep(2)
  }
}
