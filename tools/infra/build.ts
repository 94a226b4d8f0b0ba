import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { environmentFor } from './server.ts'

/** Downloads, builds, data and logs of the real parts. Git ignores it. Safe to delete while nothing runs. */
export const infraDirectory = join(import.meta.dir, '../../.infra')

/** How Maven and Go reach their repositories, and where they keep what they fetched. */
const toolVariables = [
  'HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR XDG_CACHE_HOME',
  'MAVEN_OPTS MAVEN_ARGS JAVA_TOOL_OPTIONS',
  'GOPROXY GOSUMDB GONOSUMDB GOPRIVATE GOPATH GOCACHE GOMODCACHE GOTOOLCHAIN GOFLAGS',
].flatMap((names) => names.split(' '))

export interface Build {
  name: string
  /** The files that say what is built. When one changes, it is built again. */
  sources: readonly string[]
  /** Runs in the first source's folder. */
  command: (output: string) => readonly string[]
}

/** The folder of the finished build of these sources, whether it exists or not. */
export function builtPath({ name, sources }: Build): string {
  const hash = new Bun.CryptoHasher('sha256')
  for (const source of sources) hash.update(readFileSync(source))
  return join(infraDirectory, `${name}-${hash.digest('hex').slice(0, 12)}`)
}

/** What this machine lacks to build it with Go, in words for a person; empty when nothing is missing. */
export function missingForGo(plan: Build): string[] {
  return Bun.which('go') || existsSync(builtPath(plan)) ? [] : ['Go 1.24 or newer (`go` on the PATH)']
}

/** The build's folder; built on first use. It gets its name when it is whole, whoever else builds or dies meanwhile. */
export async function build(plan: Build): Promise<string> {
  const { name, sources, command } = plan
  const path = builtPath(plan)
  if (existsSync(path)) return path
  mkdirSync(infraDirectory, { recursive: true })
  const unfinished = mkdtempSync(join(infraDirectory, 'unfinished-'))
  try {
    console.error(`Building ${name} once, into ${path} (a minute or two)`)
    const output = join(unfinished, 'output')
    await run(command(output), { cwd: join(sources[0] ?? '', '..'), env: environmentFor(toolVariables) })
    if (!existsSync(path)) renameSync(output, path)
  } catch (error) {
    // Another process has built the same sources meanwhile: its build is as good.
    if (!existsSync(path)) throw error
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
  return path
}

/** Runs a command to its end and returns what it printed. @throws Error with the end of its output, when it fails. */
export async function run(command: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}) {
  const { cwd = process.cwd(), env = environmentFor() } = options
  const child = Bun.spawn([...command], { cwd, env, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (child.exitCode === 0) return out
  const said = `${out}\n${err}`.trim().split('\n').slice(-25).join('\n')
  throw new Error(`\`${command.join(' ')}\` in ${cwd} ended with ${child.exitCode ?? child.signalCode}:\n${said}`)
}
