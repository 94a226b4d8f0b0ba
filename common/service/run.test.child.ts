// A service, run as every service is, with a component that does what the argument says.
import { Hono } from 'hono'
import { commonEntries, readConfig, resolveConfig } from './config.ts'
import { createLog } from './log.ts'
import { defineService, run } from './run.ts'
import { createService } from './service.ts'

const does = process.argv[2]
const gaveUp = Promise.withResolvers<void>()
await run(
  defineService({
    name: 'processor',
    readConfig: () => resolveConfig('processor', readConfig(commonEntries, { PROCESSOR_PORT: '0' })),
    create: (_config, _deps, listener) =>
      createService({
        name: does ?? '',
        listener,
        app: new Hono(),
        components: [
          { name: 'works', close: async () => console.log('closed in order') },
          {
            name: 'consumer',
            async start() {
              if (does === 'gives up') gaveUp.reject(new Error('No broker took me.'))
            },
            async close() {
              if (does === 'closes slowly') await Bun.sleep(60_000)
            },
            ended: gaveUp.promise,
          },
        ],
        log: createLog('test', 'info'),
        closing: new AbortController(),
      }),
  }),
)
