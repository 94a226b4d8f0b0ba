import { systemDeps } from '../../common/service/deps.ts'
import { fileUrl } from '../../common/service/file-url.ts'
import { createGrant } from '../../gateway/accounts/access-tokens.ts'
import { openKeys } from '../../gateway/accounts/keys.ts'
import { eventAdder } from '../../gateway/database/events.ts'
import { openDatabase } from '../../gateway/database/open.ts'
import { storeSession } from '../../gateway/testing/session.ts'
import { embeddedParts } from '../testing/parts.ts'
import { serviceProcesses } from '../testing/service-processes.ts'

export interface Gateway {
  readonly url: string
  readonly databaseUrl: string
  /** Resolves to how many transactions it has committed so far. */
  commits(): Promise<number>
  /** Resolves to an access token of a new user. */
  token(): Promise<string>
  stop(): Promise<void>
}

/** Starts gateway alone, in a process of its own, on embedded parts. */
export async function startGateway(): Promise<Gateway> {
  const parts = await embeddedParts()
  const { gateway } = await serviceProcesses({ ...parts.environment, LOG_LEVEL: 'warn' })
  await gateway.start()
  const { url } = gateway

  const databaseUrl = fileUrl(parts.dataDir, 'gateway.db')
  const { database, writer, close } = await openDatabase({ url: databaseUrl })
  const keys = await openKeys({ database, writer, addEvent: eventAdder(systemDeps), deps: systemDeps })
  const grant = createGrant({ issuer: url, keys, deps: systemDeps })
  return {
    url,
    databaseUrl,
    async commits() {
      const text = await (await fetch(`${url}/metrics`)).text()
      return Number(/^posta_commit_size_count\S* (\d+)$/m.exec(text)?.[1])
    },
    async token() {
      const { user, session, refreshToken } = await storeSession({ database, writer })
      return (await grant(user, session, refreshToken)).accessToken
    },
    async stop() {
      await close()
      await gateway.stop('SIGTERM')
      await parts.dispose()
    },
  }
}
