import { operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { AnyPerformer, Run as RunFunction } from '../performers/performer.ts'
import type { Performers } from '../performers/performers.ts'
import type { Kind } from './runs.ts'

export type RunCode = ReturnType<typeof codeOf>

/** The code of each version of each operation in steps: the kinds of runs that this processor can go on with. */
export function codeOf(performers: Performers) {
  const all = operationTypes.flatMap((type) => {
    const performer: AnyPerformer = performers[type]
    const { version = 1, earlier = {} } = performer
    const codes = Object.entries(earlier).map(([number, code]) => ({ type, version: Number(number), code }))
    return performer.run ? [{ type, version, code: performer.run.bind(performer) }, ...codes] : codes
  })
  const find = (kind: Kind) => all.find(({ type, version }) => type === kind.type && version === kind.version)
  const unknown: RunFunction<Contract> = () => Promise.reject(new Error('This processor has no such version.'))
  return {
    kinds: all.map(({ type, version }): Kind => ({ type, version })),
    has: (kind: Kind) => find(kind) !== undefined,
    of: (kind: Kind) => find(kind)?.code ?? unknown,
  }
}
