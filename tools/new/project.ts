import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { NAME } from '../../common/name.ts'
import { CommandError } from '../../common/service/command.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { format } from './format.ts'
import { repositoryFiles } from './repository-files.ts'

const MAX_NAME_CHARACTERS = 40

/** Its holders' names stay in each copy, as it says itself. */
const KEPT = new Set(['LICENSE'])

/**
 * Copies this repository to a folder under another name: that of its packages, topics, groups, token audience, metrics,
 * databases, documents and whatever else has this repository's name. Nothing is written unless all of it can be.
 * @param folder must be empty, or not exist
 * @param sources by their paths, what becomes the project's files
 * @returns the paths, and which of them have the name in them
 * @throws CommandError for a name that is none, or a folder that cannot be used
 */
export function writeProject(
  name: string,
  folder: string,
  sources = allFiles(),
): { paths: string[]; changed: string[] } {
  checkName(name)
  const target = resolve(folder)
  checkFolder(target)
  const rename = renamer(name)
  const files = [...sources].map(([path, bytes]) => {
    const text = bytes.includes(0) || KEPT.has(path) ? undefined : Buffer.from(bytes).toString()
    const content = text === undefined ? bytes : rename(text)
    return { path: rename(path), content, isChanged: content !== (text ?? bytes) }
  })
  for (const { path, content } of files) {
    const to = join(target, path)
    mkdirSync(dirname(to), { recursive: true })
    writeFileSync(to, content)
    if (content.toString().startsWith('#!')) chmodSync(to, 0o755)
  }
  // The order of imports and where lines break follow from the name's letters.
  format(target, ['.'])
  return {
    paths: files.map(({ path }) => path),
    changed: files.filter(({ isChanged }) => isChanged).map(({ path }) => path),
  }
}

/** The files of this repository, by their paths. */
function allFiles(): ReadonlyMap<string, Uint8Array> {
  return new Map(repositoryFiles(REPOSITORY_ROOT).map((path) => [path, readFileSync(join(REPOSITORY_ROOT, path))]))
}

function checkName(name: string): void {
  if (!/^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/.test(name))
    throw new CommandError(
      `${name} is no name of a project: it has lower case letters, digits and hyphens, as my-shop, and begins with a letter.`,
    )
  if (name.length > MAX_NAME_CHARACTERS)
    throw new CommandError(`${name} is no name of a project: it has more than ${MAX_NAME_CHARACTERS} characters.`)
}

function checkFolder(target: string): void {
  const inside = relative(REPOSITORY_ROOT, target)
  if (!inside.startsWith('..') && !isAbsolute(inside))
    throw new CommandError(`${target} is in this repository. Name a folder outside of it.`)
  if (!existsSync(target)) return
  if (!statSync(target).isDirectory()) throw new CommandError(`${target} is no folder.`)
  if (readdirSync(target).length > 0) throw new CommandError(`${target} is not empty.`)
}

/** Puts the name in the place of this repository's: `my-shop`, in titles `My Shop`, before an underscore `my_shop`. */
export function renamer(name: string): (text: string) => string {
  const now = word(NAME)
  const title = word(titleOf(NAME))
  // The hashes of audit chains begin with the name of their format, which stays.
  const format = '(?! audit chain)'
  return (text) =>
    text
      .replace(new RegExp(`${now}(?=_)`, 'g'), name.replaceAll('-', '_'))
      .replace(new RegExp(now + format, 'g'), name)
      .replace(new RegExp(title, 'g'), titleOf(name))
}

/** Not as a part of another word; `\n` in the text of a program may stand before it. */
const word = (text: string) => `(?<=^|[^A-Za-z]|\\\\n)${text}(?![A-Za-z])`

function titleOf(name: string): string {
  return name
    .split('-')
    .map((part) => part.replace(/^./, (letter) => letter.toUpperCase()))
    .join(' ')
}
