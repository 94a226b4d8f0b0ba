import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { NAME } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { operationFiles } from './operation.ts'
import { repositoryFiles } from './repository-files.ts'

/** What is of `convert`, `store-rates` and `payout` alone. */
const EXAMPLE_FILES = [
  'common/operations/{convert,daily-usd,payout,rates,store-rates}.ts',
  'common/operations/payout.test.ts',
  'gateway/preparers/{convert,payout,rates-of,rates-of.test,store-rates}.ts',
  'gateway/rates/*',
  'gateway/testing/fake-rates-api.ts',
  'processor/{rates,rates.test}.ts',
  'processor/performers/{convert,minor-unit,order,payout,store-rates}.ts',
  'processor/performers/{convert,payout,store-rates}.test.ts',
  'common/messages/versions/{1,2}.json',
  'tests/chaos/**',
  'tests/system/{conversions,external-api,payout,runs}.test.ts',
  'tools/{provider,provider.test}.ts',
  'tools/provider/*',
  'tools/infra/toxiproxy.ts',
  'tools/infra/toxiproxy/*',
  // This flag itself.
  'tests/system/without-examples.test.ts',
  'tools/new/without-examples.ts',
].map((pattern) => new Bun.Glob(pattern))

/** Packages that nothing else uses, and what only those use: their lines in `package.json` and `bun.lock`. */
const EXAMPLE_PACKAGES = ['@fawazahmed0/currency-api', 'currency-codes', 'first-match', 'nub']

/** The files in this folder take the places of this repository's. They are compiled in the copy alone. */
const INSTEAD = 'tools/new/instead/'

/** What it has to begin with. `common/testing/sample.ts` names them. */
const STARTERS = { echo: { facts: false, steps: false }, book: { facts: true, steps: true } } as const

const LINE = /^.*(?:(?:\/\/|#) example|<!-- example -->)\n/gm
const REGION = /^ *(?:\/\/|#|<!--) example \{(?: -->)?\n[\s\S]*?^ *(?:\/\/|#|<!--) \}(?: -->)?\n/gm
const INSTEAD_REGION = /^<!-- instead \{\n([\s\S]*?)^\} -->\n/gm
const IMPORT = /^import [^'"]+ from '([^']+)'\n/gm
/** In JSON: of a package, of the command of the fault runs, or about the folder above. */
const ENTRY = new RegExp(`^ *"(?:(?:chaos|${EXAMPLE_PACKAGES.join('|')})": .*|.*${INSTEAD}?.*)\n\n?`, 'gm')

/**
 * The files of this repository, path and content, as a project without the examples has them. It has two small operations
 * to begin with instead, as `bun run new operation` writes them. It lacks
 *
 * - `EXAMPLE_FILES`, each import of one of them, and `EXAMPLE_PACKAGES`
 * - each line that ends in `// example`, and the lines from `// example {` to `// }`. In Markdown the comment is
 *   `<!-- example -->` and so on, elsewhere `# example`.
 *
 * Only such a project has the lines of a document between `<!-- instead {` and `} -->`.
 */
export function withoutExamples(): ReadonlyMap<string, Uint8Array> {
  const paths = repositoryFiles(REPOSITORY_ROOT)
  const left = new Set(paths.filter((path) => EXAMPLE_FILES.some((glob) => glob.match(path))))
  const files = new Map<string, Uint8Array>()
  for (const path of paths) {
    if (left.has(path) || path.startsWith(INSTEAD)) continue
    const bytes = readFileSync(join(REPOSITORY_ROOT, path))
    files.set(path, bytes.includes(0) ? bytes : Buffer.from(bare(bytes.toString(), path, left)))
  }
  for (const path of paths)
    if (path.startsWith(INSTEAD)) files.set(path.slice(INSTEAD.length), readFileSync(join(REPOSITORY_ROOT, path)))
  const textOf = (path: string) => {
    const bytes = files.get(path)
    return bytes && Buffer.from(bytes).toString()
  }
  for (const [type, kind] of Object.entries(STARTERS))
    for (const [path, text] of operationFiles(type, kind, textOf)) files.set(path, Buffer.from(text))
  return files
}

function bare(text: string, path: string, left: ReadonlySet<string>): string {
  const marked = text.replace(REGION, '').replace(LINE, '').replace(INSTEAD_REGION, '$1')
  if (path.endsWith('.ts'))
    return marked.replace(IMPORT, (whole, from: string) => (left.has(resolved(from, path)) ? '' : whole))
  return /(?:\.json|bun\.lock)$/.test(path) ? marked.replace(ENTRY, '') : marked.replace(/\n{3,}/g, '\n\n')
}

/** The path of an imported file, from this repository's root. */
function resolved(from: string, importer: string): string {
  return from.startsWith('.') ? join(dirname(importer), from) : from.replace(`@${NAME}/`, '')
}
