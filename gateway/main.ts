import { systemDeps } from '@posta/common/service/deps.ts'
import { run } from '@posta/common/service/lifecycle.ts'
import { readGatewayConfig } from './config.ts'
import { createGateway } from './gateway.ts'

await run({
  portVariable: 'GATEWAY_PORT',
  readConfig: readGatewayConfig,
  create: (config, listener) => createGateway(config, systemDeps, listener),
})
