import { NAME } from '@posta/common/name.ts'
import { Problem } from '@posta/common/service/problem.ts'
import common from '@zxcvbn-ts/language-common/src/passwords.json'

const commonPasswords: ReadonlySet<string> = new Set(common)

/**
 * Whether `password` is among those that attackers try first. Few of the known ones have 15 characters, so two of them in
 * a row and any repeated text count too. The user's email, the part of it before the @, and the name of this system count
 * as known.
 */
export function isCommon(password: string, email: string): boolean {
  const text = password.toLowerCase()
  const isKnown = (part: string) =>
    commonPasswords.has(part) || part === NAME || part === email || part === email.split('@', 1)[0]
  if (isKnown(text) || isRepetition(text)) return true
  for (let cut = 1; cut < text.length; cut++) if (isKnown(text.slice(0, cut)) && isKnown(text.slice(cut))) return true
  return false
}

/** Whether it is one piece at least twice in a row, the last one perhaps cut short: no harder to guess than the piece. */
function isRepetition(text: string): boolean {
  for (let piece = 1; piece <= text.length / 2; piece++) if (text.startsWith(text.slice(piece))) return true
  return false
}

/** @throws Problem `invalid-input` at `pointer` */
export function refuseCommon(password: string, email: string, pointer: string): void {
  if (!isCommon(password, email)) return
  const detail = 'is too common: it is among the passwords that attackers try first'
  throw new Problem('invalid-input', undefined, { errors: [{ pointer, detail }] })
}
