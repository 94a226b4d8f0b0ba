import { expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'

/** Paths of this repository as documents name them: in backticks or as the target of a link. */
const PATH = /(?:`|\]\()((?:common|gateway|processor|monitor|tests|tools|patches|docs|client)\/[\w./@-]*\w)(?:`|\))/g

test.each(['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'patches/README.md'])(
  'every file and folder that %s names exists',
  async (document) => {
    const text = await Bun.file(join(REPOSITORY_ROOT, document)).text()
    const named = [...text.matchAll(PATH)].map(([, path = '']) => path)
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((path) => !existsSync(join(REPOSITORY_ROOT, path)))).toEqual([])
  },
)

test('README and .env.example name the same variables', async () => {
  const [readme, example] = await Promise.all(
    ['README.md', '.env.example'].map((name) => Bun.file(join(REPOSITORY_ROOT, name)).text()),
  )
  const table = (readme ?? '').split('\n## Environment')[1]?.split('\n## ')[0] ?? ''
  const inTable = new Set([...table.matchAll(/`([A-Z][A-Z_]+[A-Z])`/g)].map(([, name]) => name))
  const inExample = new Set([...(example ?? '').matchAll(/^#? ?([A-Z][A-Z_]+[A-Z])=/gm)].map(([, name]) => name))
  // Not Posta's own: how Bun itself finds a private CA.
  inTable.delete('NODE_EXTRA_CA_CERTS')
  expect([...inTable].toSorted()).toEqual([...inExample].toSorted())
})
