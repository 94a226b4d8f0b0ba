// A service, run as every service is, one component of which gives up as soon as it has started.
import { Hono } from 'hono'
import { commonEntries, readConfig, resolveConfig } from './config.ts'
import { createLog } from './log.ts'
import { defineService, run } from './run.ts'
import { createService } from './service.ts'

const gaveUp = Promise.withResolvers<void>()
await run(
  defineService({
    name: 'processor',
    readConfig: () => resolveConfig('processor', readConfig(commonEntries, { PROCESSOR_PORT: '0' })),
    create: (_config, _deps, listener) =>
      createService({
        name: 'gives up',
        listener,
        app: new Hono(),
        components: [
          { name: 'works', close: async () => console.log('closed in order') },
          {
            name: 'consumer',
            start: async () => gaveUp.reject(new Error('No broker took me.')),
            ended: gaveUp.promise,
          },
        ],
        log: createLog('gives-up', 'info'),
        closing: new AbortController(),
      }),
  }),
)
