import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { unlessAborted } from '@posta/common/service/deadline.ts'
import { Problem } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { Preparer, Sources } from '../preparers/preparer.ts'
import { preparers } from '../preparers/preparers.ts'

const MAX_MS = 10_000

export type Preparers = { readonly [Type in OperationType]?: Preparer<Contract> | undefined }
const all: Preparers = preparers

/**
 * The facts of an operation, from its preparer; undefined if its contract has none.
 * @param input as the contract's schema reads it
 * @throws Problem of the preparer, or `unavailable` after 10 s
 */
export async function prepare(
  type: OperationType,
  input: Record<string, unknown>,
  user: string,
  sources: Sources,
  { preparers = all, maxMs = MAX_MS }: { readonly preparers?: Preparers | undefined; readonly maxMs?: number } = {},
): Promise<Record<string, unknown> | undefined> {
  const preparer = preparers[type]
  if (!preparer) return undefined
  const contract: Contract = catalog[type]
  const asked = v.parse(contract.input, input)
  const signal = AbortSignal.timeout(maxMs)
  try {
    // A preparer need not heed the signal.
    return await unlessAborted(preparer({ input: asked, user, signal }, sources), signal)
  } catch (error) {
    if (error instanceof Problem || !signal.aborted) throw error
    const detail = `What ${type} needs to know from outside could not be learned within ${maxMs / 1000} s.`
    throw new Problem('unavailable', detail, { retryAfterS: 5, cause: error })
  }
}
