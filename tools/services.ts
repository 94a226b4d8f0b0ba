// `bun run start` and, with --watch, `bun run dev`: the services, or those that are named, each a process of its own.
import { watch } from 'node:fs'
import { join } from 'node:path'
import { type ServiceName, serviceNames } from '../common/name.ts'
import { REPOSITORY_ROOT } from '../common/service/config.ts'
import { addresses } from './addresses.ts'

const watching = process.argv.includes('--watch')
const asked = process.argv.slice(2).filter((word) => word !== '--watch')
const named = serviceNames.filter((name) => asked.includes(name))
if (named.length < asked.length) {
  console.error(`Name services out of ${serviceNames.join(', ')}, or none for all of them.`)
  process.exit(1)
}
const names = named.length > 0 ? named : serviceNames
const urls: Partial<Record<ServiceName, string>> = {}
let stopping = false

const services = names.map(supervise)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(signal))
if (watching) for (const folder of ['common', ...names]) restartOnChange(folder)
const codes = await Promise.all(services.map(({ ended }) => ended))
process.exit(codes.every((code) => code === 0) ? 0 : 1)

/** Runs a service's process, and a new one after each change. `ended` resolves to the exit code of the last. */
function supervise(name: ServiceName) {
  let child = spawn(name)
  let told = Promise.withResolvers<void>()
  let isTold = false

  function tell(signal: NodeJS.Signals): void {
    child.kill(signal)
    isTold = true
    told.resolve()
  }

  async function run(): Promise<number> {
    for (let first = true; ; first = false) {
      const code = await child.exited
      if (!isTold && (first || !watching)) {
        console.error(`${name} ended with code ${code}${names.length > 1 ? '; the others are stopped' : ''}.`)
        stop('SIGTERM')
        return code || 1
      }
      if (!isTold) console.error(`${name} ended with code ${code}; it starts again after the next change.`)
      await told.promise
      if (stopping) return code
      told = Promise.withResolvers()
      isTold = false
      child = spawn(name)
    }
  }

  return {
    name,
    ended: run(),
    tell,
    /** Lets the process finish what it does; a new one starts when it has ended. */
    restart: () => (isTold ? undefined : tell('SIGTERM')),
  }
}

function spawn(name: ServiceName) {
  return Bun.spawn([process.execPath, `${name}/main.ts`], {
    cwd: REPOSITORY_ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
    // In a process group of its own: Ctrl-C reaches this process alone, which passes it on.
    detached: true,
    // A service says when it is ready. It closes when this channel does, so it never outlives this process.
    ipc({ ready }: { ready: string }) {
      if (name in urls) return
      urls[name] = ready
      if (Object.keys(urls).length === names.length) tellAddresses()
    },
  })
}

function tellAddresses(): void {
  console.log(`\n${addresses(urls)}\n`)
  if (urls.gateway) console.log('To make an operator, who sees everything: bun run users add EMAIL --role operator\n')
}

function stop(signal: NodeJS.Signals): void {
  stopping = true
  for (const service of services) service.tell(signal)
}

/** A file of common is every service's. Editors write a file in several steps: what changes within 100 ms is one change. */
function restartOnChange(folder: string): void {
  let timer: Timer | undefined
  watch(join(REPOSITORY_ROOT, folder), { recursive: true }, (_event, file) => {
    if (!/\.(?:ts|json|sql)$/.test(file ?? '') || /\bnode_modules\b|\.test\./.test(file ?? '')) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      for (const service of services) if (folder === 'common' || folder === service.name) service.restart()
    }, 100)
  })
}
