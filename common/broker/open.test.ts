import { expect, test } from 'bun:test'
import { ConfigError } from '../service/config.ts'
import { systemDeps } from '../service/deps.ts'
import { createLog } from '../service/log.ts'
import { openBroker } from './open.ts'

test.each([
  ['kafka://', 'BROKER_URL: every host'],
  ['redis://localhost', 'BROKER_URL: must be file:path or kafka://'],
  ['kafka://localhost?sasl=plain', 'BROKER_USERNAME and BROKER_PASSWORD: must be set'],
])('openBroker refuses %s before it connects to anything', (url, reason) => {
  const open = () => openBroker({ url, clientId: 'test', log: createLog('test', 'silent'), deps: systemDeps })
  expect(open).toThrow(ConfigError)
  expect(open).toThrow(reason)
})
