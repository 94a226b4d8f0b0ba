import { afterAll, beforeAll, expect, test } from 'bun:test'
import { cpSync, mkdirSync, readdirSync, readFileSync, realpathSync, statSync, symlinkSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { serviceNames } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { isLong } from '../../common/testing/long.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { workspaces } from '../../package.json'
import { embeddedParts } from '../testing/parts.ts'
import { serviceProcesses } from '../testing/service-processes.ts'

// These need no Docker engine: they read the Dockerfile and .dockerignore, and copy what an engine would copy.

const linesOf = (name: string) => readFileSync(join(REPOSITORY_ROOT, name), 'utf8').split('\n')

/** What the Dockerfile copies out of the repository. */
const copies = linesOf('Dockerfile').flatMap((line) => {
  const [, words] = /^COPY (?!--from)(.+)/.exec(line) ?? []
  const paths = words?.split(' ') ?? []
  return paths.slice(0, -1).map((source) => ({ source, to: paths.at(-1) ?? '' }))
})
const ignored = linesOf('.dockerignore').filter((line) => line !== '' && !line.startsWith('#'))

/** By Docker's rule: the last pattern that matches the path, or a folder above it, decides. */
function isCopied(path: string): boolean {
  let copied = true
  for (const pattern of ignored) {
    const glob = new Bun.Glob(pattern.replace(/^!/, ''))
    for (let part = path; part !== '.'; part = dirname(part)) if (glob.match(part)) copied = pattern.startsWith('!')
  }
  return copied
}

const image = temporaryFolder()
afterAll(image.remove)
beforeAll(() => {
  for (const { source, to } of copies) {
    const from = join(REPOSITORY_ROOT, source)
    const into = to.endsWith('/') && !statSync(from).isDirectory() ? join(to, basename(source)) : to
    cpSync(from, join(image.path, into), {
      recursive: true,
      filter: (each) => isCopied(relative(REPOSITORY_ROOT, each)),
    })
  }
  for (const workspace of workspaces) linkDependencies(join(workspace, 'node_modules'))
})

/** Instead of an install: links to what is installed here, and for a workspace to its copy in the image. */
function linkDependencies(folder: string): void {
  mkdirSync(join(image.path, folder), { recursive: true })
  for (const name of readdirSync(join(REPOSITORY_ROOT, folder))) {
    const path = join(folder, name)
    const installed = realpathSync(join(REPOSITORY_ROOT, path))
    const inRepository = relative(REPOSITORY_ROOT, installed)
    if (name.startsWith('@')) linkDependencies(path)
    else
      symlinkSync(
        workspaces.includes(inRepository) ? join(image.path, inRepository) : installed,
        join(image.path, path),
      )
  }
}

test('the image has the manifest and the code of every workspace', () => {
  for (const workspace of workspaces) {
    expect(copies).toContainEqual({ source: `${workspace}/package.json`, to: `${workspace}/` })
    expect(copies).toContainEqual({ source: workspace, to: workspace })
  }
})

test('the image has everything that its code imports', () => {
  const transpiler = new Bun.Transpiler({ loader: 'ts' })
  const missing: string[] = []
  const files = [...new Bun.Glob('{common,gateway,processor,monitor}/**/*.ts').scanSync(image.path)]
  for (const file of files)
    for (const { path } of transpiler.scanImports(readFileSync(join(image.path, file), 'utf8')))
      try {
        Bun.resolveSync(path, join(image.path, dirname(file)))
      } catch {
        missing.push(`${path}, which ${file} imports`)
      }
  expect(missing).toEqual([])
  expect(files.length).toBeGreaterThan(100)
})

test.skipIf(!isLong)(
  'every service of the image starts, becomes ready and stops',
  async () => {
    const parts = await embeddedParts()
    const services = await serviceProcesses({ ...parts.environment, NODE_ENV: 'production' }, { cwd: image.path })
    const stop = () => Promise.all(serviceNames.map((name) => services[name].stop('SIGTERM')))
    try {
      await Promise.all(serviceNames.map((name) => services[name].start()))
      expect(await stop()).toEqual([0, 0, 0])
    } finally {
      await stop()
      await parts.dispose()
    }
  },
  30_000,
)
