// `bun run start` and, with --watch, `bun run dev`: the three services, each a process of its own.
import { serviceNames } from '../common/name.ts'
import { REPOSITORY_ROOT } from '../common/service/config.ts'

const flags = process.argv.includes('--watch') ? ['--watch', '--no-clear-screen'] : []
let stopping = false

// A process group each: Ctrl-C in the terminal reaches this process alone, which passes it on once.
const children = serviceNames.map((name) => ({
  name,
  process: Bun.spawn([process.execPath, ...flags, `${name}/main.ts`], {
    cwd: REPOSITORY_ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  }),
}))

function stop(signal: NodeJS.Signals): void {
  stopping = true
  for (const child of children) child.process.kill(signal)
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(signal))

const codes = await Promise.all(
  children.map(async ({ name, process: child }) => {
    const code = await child.exited
    if (!stopping) {
      console.error(`${name} ended with code ${code}; the others are stopped.`)
      stop('SIGTERM')
      return code || 1
    }
    return code
  }),
)
process.exit(Math.max(...codes.map((code) => (code === 0 ? 0 : 1))))
