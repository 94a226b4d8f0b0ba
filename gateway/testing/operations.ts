import type { MessageData } from '@posta/common/messages/events.ts'
import { type Contracts, catalog, type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import { sample } from '@posta/common/testing/sample.ts'
import * as v from 'valibot'
import type { Sources } from '../preparers/preparer.ts'

export const everyType: ReadonlySet<OperationType> = new Set(operationTypes)

/** For tests: sources that do not change, and an operation that needs no others. */
export const fixedSources: Sources = {
  http: createHttp(systemDeps),
  rates: { table: async () => sample.facts }, // example
}
export const submission = { type: sample.type, input: sample.input() }

/** For tests: that `step-<n>` of an operation of ana's is done, or what is said otherwise. */
export function progressOf(
  operation: string,
  n: number,
  given: Partial<MessageData<'posta.operation.progressed'>> = {},
): MessageData<'posta.operation.progressed'> {
  const at = '2026-11-23T12:00:00.000Z'
  return { user: 'ana', operation, operationType: sample.type, n, step: `step-${n}`, status: 'done', at, ...given }
}

/** For tests: the catalog, in which `submission` takes an answer of an operator and one of its owner. */
export const answering: Contracts = {
  ...catalog,
  [sample.type]: {
    ...catalog[sample.type],
    steps: true,
    signals: {
      approve: {
        description: 'Whether it may be done.',
        payload: v.strictObject({ approved: v.boolean() }),
        from: 'operator',
      },
      confirm: { description: 'That it was meant.', payload: v.strictObject({}), from: 'owner' },
    },
  },
}
