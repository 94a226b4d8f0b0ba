import { systemDeps } from '@posta/common/service/deps.ts'
import { run } from '@posta/common/service/lifecycle.ts'
import { readProcessorConfig } from './config.ts'
import { createProcessor } from './processor.ts'

await run({
  portVariable: 'PROCESSOR_PORT',
  readConfig: readProcessorConfig,
  create: (config, listener) => createProcessor(config, systemDeps, listener),
})
