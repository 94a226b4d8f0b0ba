import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NAME } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { repositoryFiles } from '../../tools/new/repository-files.ts'

/** Copies this repository to a new folder, as it is now, and installs there what it needs. */
export function copyRepository(): string {
  const copy = mkdtempSync(join(tmpdir(), `${NAME}-copy-`))
  for (const path of repositoryFiles(REPOSITORY_ROOT)) cpSync(join(REPOSITORY_ROOT, path), join(copy, path))
  install(copy)
  return copy
}

/** Without the network, where the packages are in Bun's cache: as they are after an install of this repository. */
export function install(folder: string): void {
  const command = [process.execPath, 'install', '--frozen-lockfile']
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  if (exitCode !== 0) throw new Error(`bun install failed in ${folder}: ${stderr.toString()}`)
}

/** Runs Bun in a copy, with its quick tests alone: what makes the tests here long, or gives them servers, is left out. */
export function runIn(folder: string, ...args: string[]) {
  const { TEST_ALL: _all, TEST_BROKER_URL: _broker, TEST_MONGO_URL: _mongo, ...environment } = process.env
  const child = Bun.spawnSync([process.execPath, ...args], {
    cwd: folder,
    env: { ...environment, NODE_ENV: 'test' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return { code: child.exitCode, out: child.stdout.toString(), error: child.stderr.toString() }
}

/** A hash over the files of a repository: their paths and their bytes. */
export async function digestOf(folder: string): Promise<string> {
  const hasher = new Bun.CryptoHasher('sha256')
  for (const path of repositoryFiles(folder)) hasher.update(path).update(await Bun.file(join(folder, path)).bytes())
  return hasher.digest('hex')
}
