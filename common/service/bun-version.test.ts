import { afterAll, expect, test } from 'bun:test'
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import packageJson from '../../package.json'
import { temporaryFolder } from '../testing/temporary-folder.ts'
import { REPOSITORY_ROOT } from './config.ts'

/** A copy of what decides, which asks for a Bun that does not exist yet. Nothing else is there, nor installed. */
const { path: copy, remove } = temporaryFolder()
for (const file of ['bunfig.toml', 'common/service/bun-version.ts', 'gateway/package.json'])
  cpSync(join(REPOSITORY_ROOT, file), join(copy, file))
writeFileSync(join(copy, 'package.json'), JSON.stringify({ ...packageJson, packageManager: 'bun@999.1.2' }))
for (const file of ['one.test.ts', 'tools/infra.ts', 'tools/services.ts', 'gateway/main.ts', 'gateway/tools/users.ts'])
  cpSync(import.meta.path, join(copy, file))
afterAll(remove)

test.concurrent.each([
  'run demo',
  'run verify',
  'run dev',
  'run start',
  'run infra',
  'run users list',
  'test',
  '--cwd=gateway run dev',
  '--cwd=gateway run start',
])('with an older Bun `bun %s` says which one is needed, before anything else', async (command) => {
  const child = Bun.spawn([process.execPath, ...command.split(' ')], { cwd: copy, stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  expect(await child.exited).toBe(1)
  expect(err).toContain(`This needs Bun 999.1.2 or newer, and this is Bun ${Bun.version}.`)
  expect(err).toContain('npx -y bun@999.1.2 run demo')
  expect(out + err).not.toMatch(/bun install v|not found|Cannot find/i)
})
