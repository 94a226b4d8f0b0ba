import { beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { call, expectBody } from '../../tools/client.ts'
import { Operation, outcomeOf, stepsOf, usdToArs } from './operations.ts'
import { serviceProcesses } from './processes.ts'
import { describeLong, embeddedParts, newUser } from './system.ts'

// A kill loses nothing that the system's page cache still has: only the calls themselves tell what was synced when.
const strace = Bun.which('strace')

/** What a service did, in the order of the clock that all share. */
interface Call {
  readonly service: ServiceName
  readonly atS: number
  /** `write` and `sync`: of a database's log. `answer`: of HTTP. */
  readonly kind: 'write' | 'sync' | 'answer'
  /** The file without its folder, or the status of the answer. */
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

    test('is synced before anyone is told, at every step from the submission to the audit', () => {
      /** The first write with the operation's id in it, and the sync after it. */
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
      // What is written to the broker next is where the group stands: it moves behind what is synced alone.
      expect(moved('gateway', updated.writtenS)?.atS).toBeGreaterThan(updated.syncedS)
      expect(moved('monitor', audited.writtenS)?.atS).toBeGreaterThan(audited.syncedS)
    })

    test('has nothing unsynced whenever its service answers, or writes another file', () => {
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

/** One conversion on a system of its own, from the submission until monitor has it, as the kernel saw it. */
async function traceConversion(): Promise<{ calls: readonly Call[]; id: string }> {
  const parts = await embeddedParts()
  const traces = mkdtempSync(join(tmpdir(), 'posta-test-'))
  const traceOf = (service: ServiceName) => join(traces, service)
  // -D: the service stays the direct child, to which signals go.
  const services = await serviceProcesses(parts.environment, (service) => [
    ...['strace', '-D', '-f', '-y', '-ttt', '-s', '16384', '-o', traceOf(service)],
    ...['-e', 'trace=fsync,fdatasync,write,pwrite64,writev,pwritev,send,sendto,sendmsg', '--'],
  ])
  let id = ''
  try {
    await Promise.all(serviceNames.map((name) => services[name].start()))
    const { token } = await newUser(services.gateway.url)
    const answer = await call('POST', `${services.gateway.url}/operations`, { token, body: usdToArs('1') })
    id = expectBody(answer, 202, Operation).id
    await outcomeOf(services.gateway.url, token, id)
    await stepsOf(services.monitor.url, token, id, 2)
  } finally {
    await Promise.all(serviceNames.map((name) => services[name].stop('SIGTERM')))
    await parts.dispose()
  }
  try {
    for (const name of serviceNames)
      while (!lastLine(traceOf(name)).includes('+++ exited with 0 +++')) await Bun.sleep(20)
    const calls = serviceNames.flatMap((name) => readTrace(name, readFileSync(traceOf(name), 'utf8')))
    return { calls: calls.sort((a, b) => a.atS - b.atS), id }
  } finally {
    rmSync(traces, { recursive: true, force: true })
  }
}

function lastLine(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').at(-1) ?? ''
}

/** Lines such as `12 1795505304.210576 pwrite64(15</data/gateway.db-wal>, "…", 24, 350232) = 24`. */
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
