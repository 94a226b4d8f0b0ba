import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { NAME, TITLE } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { repositoryFiles } from '../../tools/new/repository-files.ts'
import { digestOf, install, runIn } from '../testing/copy-repository.ts'
import { describeLong } from '../testing/parts.ts'

/** What a new name touches in a file, without which the file would be the same. */
const IMPORTS = new RegExp(`@${NAME}/`, 'g')
const MESSAGES = new RegExp(`\\b${NAME}\\.[a-z]+(?:-[a-z]+)*\\.(?=[a-z])`, 'g')
const METRICS = new RegExp(`\\b${NAME}_(?!processor|monitor)[a-z_]+(?=')`, 'g')
const ANY = new RegExp(`(?<![a-z])${NAME}(?![a-z])`, 'i')
/** The format of audit chains, whose hashes begin with it. */
const FORMAT = `${NAME} audit chain`
/** Tests say the name as those do who use the system. Documents are for people. Of packages, the manager wants it. */
const SAYS_IT_ANYWAY = /\.(?:test|suite|child)\.ts$|\/testing\/|^tests\/|\.md$|package\.json$|^bun\.lock$|\/versions\//

describeLong('a new project', () => {
  const { path: folder, remove } = temporaryFolder()
  const project = join(folder, 'shop')
  const full = join(folder, 'full')
  let said: ReturnType<typeof runIn>

  beforeAll(() => {
    said = runIn(REPOSITORY_ROOT, 'tools/new.ts', 'project', 'my-shop', project)
    install(project)
    mkdirSync(full)
    writeFileSync(join(full, 'file'), '')
  }, 60_000)
  afterAll(remove)

  test('has the files of this repository, and nowhere its name', () => {
    expect(said).toMatchObject({ code: 0, error: '' })
    const paths = repositoryFiles(REPOSITORY_ROOT)
    expect(repositoryFiles(project)).toEqual(paths)
    expect(statSync(join(project, '.ci/run')).mode & 0o111).toBe(0o111)
    const named = paths.flatMap((path) => {
      return ANY.test(readFileSync(join(project, path), 'utf8').replaceAll(FORMAT, '')) ? [path] : []
    })
    // A licence says who wrote it first.
    expect(named).toEqual(['LICENSE'])
    expect(readFileSync(join(project, 'README.md'), 'utf8')).toStartWith('# My Shop\n')
  })

  test('touches few files beyond imports, the names of messages and metrics, tests and documents', () => {
    const touched = repositoryFiles(REPOSITORY_ROOT).filter(
      (path) => !readFileSync(join(REPOSITORY_ROOT, path)).equals(readFileSync(join(project, path))),
    )
    expect(said.out).toContain(`; ${touched.length} of them have the name in them.`)
    const byHand = touched.filter((path) => {
      const text = readFileSync(join(REPOSITORY_ROOT, path), 'utf8')
      return ANY.test(text.replace(IMPORTS, '').replace(MESSAGES, '').replace(METRICS, '').replaceAll(FORMAT, ''))
    })
    expect(byHand.filter((path) => !SAYS_IT_ANYWAY.test(path))).toEqual([
      '.env.example',
      'common/name.ts',
      'docker-compose.yml',
      'monitor/dashboard/page.html',
      'redpanda.yaml',
      'tools/infra.ts',
      'tools/infra/ferretdb/go.mod',
      'tools/infra/pom.xml',
      'tools/infra/toxiproxy/go.mod', // example
    ])
  })

  test('passes all checks', () => {
    const { code, out, error } = runIn(project, 'run', 'check')
    expect({ code, out }, error).toMatchObject({ code: 0 })
  }, 120_000)

  test('passes its tests of messages, tokens, documents and hashes', () => {
    const tests = ['common/messages', 'common/service', 'gateway/accounts', 'monitor/audit', 'tests/system/documents']
    const { code, error } = runIn(project, 'test', '--timeout', '60000', ...tests)
    expect(code, error).toBe(0)
  }, 120_000)

  test('shows in its demo that it works, under its own name', () => {
    const { code, out, error } = runIn(project, 'tools/demo.ts', '--once')
    expect({ code, error }).toEqual({ code: 0, error: '' })
    expect(out).toContain('my-shop.operation.succeeded  (my-shop.results')
    expect(out).toContain('Everything is as it should be.')
  }, 60_000)

  test('is the same where there is no git', () => {
    // The project itself is no repository of git.
    mkdirSync(join(project, 'data'))
    const again = join(folder, 'again')
    expect(runIn(project, 'tools/new.ts', 'project', NAME, again)).toMatchObject({ code: 0, error: '' })
    expect(repositoryFiles(again)).toEqual(repositoryFiles(REPOSITORY_ROOT))
    expect(readFileSync(join(again, 'README.md'), 'utf8')).toStartWith(`# ${TITLE}\n`)
  }, 60_000)

  test.each([
    [['Shop', join(folder, 'x')], 'Shop is no name of a project'],
    [['1shop', join(folder, 'x')], '1shop is no name of a project'],
    [['my_shop', join(folder, 'x')], 'my_shop is no name of a project'],
    [['a'.repeat(41), join(folder, 'x')], `${'a'.repeat(41)} is no name of a project`],
    [['shop'], 'DIR is missing.'],
    [[], 'NAME is missing.'],
    [['shop', join(folder, 'x'), 'y'], 'A project has one name and one folder, so y is too much.'],
    [['shop', join(folder, 'x'), '--examples'], "Unknown option '--examples'"],
    [['shop', project], `${project} is in this repository.`],
    [['shop', join(project, 'x')], `${join(project, 'x')} is in this repository.`],
    [['shop', full], `${full} is not empty.`],
    [['shop', join(full, 'file')], `${join(full, 'file')} is no folder.`],
  ])(
    'is refused with words, and nothing is written: %j',
    async (words, why) => {
      const state = async () => [readdirSync(folder), readdirSync(full), await digestOf(project)]
      const before = await state()
      // The project refuses, and not this repository: should it not refuse, nothing of ours is written over.
      const refused = runIn(project, 'tools/new.ts', 'project', ...words)
      expect(refused.code).toBe(1)
      expect(refused.error).toStartWith(why)
      expect(await state()).toEqual(before)
    },
    30_000,
  )
})
