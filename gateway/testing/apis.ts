import { BlockList } from 'node:net'
import { systemDeps } from '@posta/common/service/deps.ts'
import type { Forbidden } from '@posta/common/service/forbidden.ts'
import { createLog } from '@posta/common/service/log.ts'
import { testApp, testVerifier } from '@posta/common/testing/app.ts'
import { graphqlRoutes } from '../graphql/routes.ts'
import { createWaiters } from '../operations/await-outcome.ts'
import { keepProgress } from '../operations/keep-progress.ts'
import { createRead } from '../operations/read.ts'
import { createSubmit } from '../operations/submit.ts'
import { createTell } from '../operations/tell.ts'
import { operationRoutes } from '../rest/operations.ts'
import { openAccounts } from './accounts.ts'
import { answering, everyType, fixedSources, submission } from './operations.ts'

/**
 * For tests: operations over both APIs, on a database of their own. A token is the name of a user: ana and bob, and olga, who
 * is an operator. `submission` takes the answers of `answering`.
 */
export async function openApis({ production = true } = {}) {
  const opened = await openAccounts()
  const { database, writer, addEvent } = opened
  const log = createLog('test', 'silent')
  const submit = createSubmit({
    ...opened,
    sources: fixedSources,
    offered: everyType,
    onAccepted() {},
    deps: systemDeps,
  })
  const tell = createTell({ database, writer, addEvent, onTold() {}, deps: systemDeps, contracts: answering })
  const read = createRead(database)
  const waiters = createWaiters({ database, read, log })
  const forbidden: Forbidden[] = []
  const verify = testVerifier(['ana', 'bob'], ['olga'])
  const functions = {
    submit,
    tell,
    read,
    waiters,
    verify,
    closing: new AbortController().signal,
    onForbidden: (each: Forbidden) => forbidden.push(each),
  }
  const config = { production, trustedProxies: new BlockList() }
  const app = testApp()
    .route('/operations', operationRoutes(functions))
    .route('/graphql', graphqlRoutes({ ...functions, accounts: opened, config, log }))

  async function ask(path: string, token: string, body?: unknown) {
    const response = await app.request(path, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    return { status: response.status, body: await response.json() }
  }
  return {
    database,
    writer,
    waiters,
    forbidden,
    app,
    keep: writer.bulk(keepProgress(systemDeps.now)),
    submit: async () => (await submit({ user: 'ana', submission })).id,
    /** POST. A string is sent as it is. */
    ask,
    close: opened.close,
  }
}
