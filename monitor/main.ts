import { systemDeps } from '@posta/common/service/deps.ts'
import { run } from '@posta/common/service/lifecycle.ts'
import { readMonitorConfig } from './config.ts'
import { createMonitor } from './monitor.ts'

await run({
  portVariable: 'MONITOR_PORT',
  readConfig: readMonitorConfig,
  create: (config, listener) => createMonitor(config, systemDeps, listener),
})
