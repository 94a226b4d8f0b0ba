import { beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { call, expectBody } from '../../tools/client.ts'
import { Operation, outcomeOf, submissionOf, timelineOf } from '../testing/operations.ts'
import { describeLong, embeddedParts } from '../testing/parts.ts'
import { serviceProcesses } from '../testing/service-processes.ts'
import { newUser } from '../testing/users.ts'

// A killed process loses nothing that is in the kernel's page cache. Only its system calls show what was synced.
const strace = Bun.which('strace')

/** A system call of a service, at a time that can be compared over all of them. */
interface Call {
  readonly service: ServiceName
  readonly atS: number
  /** `write` and `sync` are of a database's write-ahead log; `answer` is an HTTP answer. */
  readonly kind: 'write' | 'sync' | 'answer'
  /** The file's name, or the status of the answer. */
  readonly to: string
  readonly text: string
}

describeLong('an embedded file', () => {
  describe.skipIf(strace === null)('under strace', () => {
    let calls: readonly Call[] = []
    let id = ''
    beforeAll(async () => {
      const traced = await traceConversion()
      calls = traced.calls
      id = traced.id
    }, 60_000)

    test('is synced before anyone is told of its content, at every step from the submission to the audit', () => {
      /** When the operation's id was first written, and when that was synced. */
      const effect = (service: ServiceName, to: string, afterS = 0) => {
        const own = calls.filter((each) => each.service === service && each.to === to && each.atS > afterS)
        const write = own.find(({ kind, text }) => kind === 'write' && text.includes(id))
        const sync = own.find(({ kind, atS }) => kind === 'sync' && write !== undefined && atS > write.atS)
        if (!write || !sync) throw new Error(`${service} did not write and sync ${to}.`)
        return { writtenS: write.atS, syncedS: sync.atS }
      }
      const accepted = effect('gateway', 'gateway.db-wal')
      const requested = effect('gateway', 'broker.db-wal')
      const performed = effect('processor', 'processor.db-wal')
      const replied = effect('processor', 'broker.db-wal')
      const updated = effect('gateway', 'gateway.db-wal', replied.syncedS)
      const audited = effect('monitor', 'monitor.db-wal')
      const told = calls.find(({ kind, to, text }) => kind === 'answer' && to === '202' && text.includes(id))
      const moved = (service: ServiceName, afterS: number) =>
        calls.find((each) => each.service === service && each.to === 'broker.db-wal' && each.atS > afterS)

      expect(told?.atS).toBeGreaterThan(accepted.syncedS)
      expect(requested.writtenS).toBeGreaterThan(accepted.syncedS)
      expect(performed.writtenS).toBeGreaterThan(requested.syncedS)
      expect(replied.writtenS).toBeGreaterThan(performed.syncedS)
      expect(updated.writtenS).toBeGreaterThan(replied.syncedS)
      // The next write to the broker is the group's offset: it must come after the sync of the effect.
      expect(moved('gateway', updated.writtenS)?.atS).toBeGreaterThan(updated.syncedS)
      expect(moved('monitor', audited.writtenS)?.atS).toBeGreaterThan(audited.syncedS)
    })

    test('has nothing unsynced whenever its service answers or writes another file', () => {
      const counts = { syncs: 0, answers: 0 }
      const unsynced = new Set<string>()
      for (const { service, kind, to } of calls) {
        const file = `${service} ${to}`
        if (kind === 'sync') unsynced.delete(file)
        else expect([...unsynced].filter((each) => each.startsWith(`${service} `) && each !== file)).toEqual([])
        if (kind === 'write') unsynced.add(file)
        if (kind === 'sync') counts.syncs += 1
        if (kind === 'answer') counts.answers += 1
      }
      expect(counts.syncs).toBeGreaterThan(20)
      expect(counts.answers).toBeGreaterThan(3)
    })
  })
})

/** Runs one operation on a new system, from the submission until monitor has it. Resolves to all calls. */
async function traceConversion(): Promise<{ calls: readonly Call[]; id: string }> {
  const parts = await embeddedParts()
  using traces = temporaryFolder()
  const traceOf = (service: ServiceName) => join(traces.path, service)
  // With -D the service is the direct child, which gets the signals.
  const under = (service: ServiceName) => [
    ...['strace', '-D', '-f', '-y', '-ttt', '-s', '16384', '-o', traceOf(service)],
    ...['-e', 'trace=fsync,fdatasync,write,pwrite64,writev,pwritev,send,sendto,sendmsg', '--'],
  ]
  const services = await serviceProcesses(parts.environment, { under })
  let id = ''
  try {
    await Promise.all(serviceNames.map((name) => services[name].start()))
    const { token } = await newUser(services.gateway.url)
    const answer = await call('POST', `${services.gateway.url}/operations`, { token, body: submissionOf() })
    id = expectBody(answer, 202, Operation).id
    await outcomeOf(services.gateway.url, token, id)
    await timelineOf(services.monitor.url, token, id, 2)
  } finally {
    await Promise.all(serviceNames.map((name) => services[name].stop('SIGTERM')))
    await parts.dispose()
  }
  const calls: Call[] = []
  for (const name of serviceNames) {
    const read = () => readFileSync(traceOf(name), 'utf8')
    await eventually(() => read().trimEnd().endsWith('+++ exited with 0 +++'))
    calls.push(...readTrace(name, read()))
  }
  return { calls: calls.sort((a, b) => a.atS - b.atS), id }
}

/** Reads lines such as `12 1795505304.210576 pwrite64(15</data/gateway.db-wal>, "…", 24, 350232) = 24`. */
function readTrace(service: ServiceName, trace: string): Call[] {
  return trace.split('\n').flatMap((text): Call[] => {
    const [, atS, name = '', path = '', rest = ''] = /^\d+ +([\d.]+) (\w+)\(\d+<([^>]*)>(.*)/.exec(text) ?? []
    const common = { service, atS: Number(atS), text }
    if (path.endsWith('.db-wal')) {
      const kind = name.endsWith('sync') ? 'sync' : 'write'
      return [{ ...common, kind, to: path.slice(path.lastIndexOf('/') + 1) }]
    }
    const [, status] = /"HTTP\/1\.1 (\d{3}) /.exec(rest) ?? []
    return status === undefined ? [] : [{ ...common, kind: 'answer', to: status }]
  })
}
